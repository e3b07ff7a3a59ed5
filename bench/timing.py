"""Timing side by side: contenders take turns, so that what else the machine does falls on all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """Seconds of one contender's rounds."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def percentile(self, percent: int) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def side_by_side(contenders: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3) -> dict[str, Result]:
    """Runs every contender once a round, in turn; returns their times by name."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        for name, work in contenders.items():
            begun = time.perf_counter()
            work()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - begun)
    return {name: Result(times) for name, times in seconds.items()}


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"
