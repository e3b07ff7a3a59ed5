"""What the jobs of the chaos suite do: leave an effect that can be counted."""

from __future__ import annotations

import random
import time
from datetime import timedelta

from rowhouse.worker.kinds import Job, job_kind

QUICK = timedelta(milliseconds=200)


@job_kind("chaos.effect", backoff=QUICK, max_backoff=timedelta(seconds=2), max_attempts=100)
def effect(job: Job) -> None:
    """Leaves an effect, sometimes slowly, sometimes only at the second try."""
    if random.random() < 0.02:
        time.sleep(random.random() * 2)
    if random.random() < 0.05:
        raise RuntimeError("not this time")
    with job.connect() as connection:
        connection.execute("insert into public.effects (job, attempt) values (%s, %s)", [job.id, job.attempt])


@job_kind("chaos.poison", backoff=QUICK, max_backoff=timedelta(seconds=1), max_attempts=3)
def poison(_: Job) -> None:
    """Never works."""
    raise RuntimeError("poison")
