"""Paths of the API and what answers them: a function per path, which takes the engine and the parameters."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .engine import Engine, is_true, subscription_of
from .store import Object, StripeError

Handler = Callable[..., Any]
ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []


def route(method: str, path: str) -> Callable[[Handler], Handler]:
    """Registers what answers a path; {name} is an argument."""
    pattern = re.compile("^/v1/" + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path) + "$")

    def register(handler: Handler) -> Handler:
        ROUTES.append((method, pattern, handler))
        return handler

    return register


def answer(engine: Engine, method: str, path: str, params: Object) -> Any:
    """The answer to a request. Raises StripeError."""
    for known, pattern, handler in ROUTES:
        if known == method and (found := pattern.match(path)):
            return handler(engine, params, **found.groupdict())
    raise StripeError(404, f"Unrecognized request URL ({method}: {path}).")


def required(params: Object, *names: str) -> None:
    for name in names:
        if params.get(name) in (None, ""):
            raise StripeError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)


def page(engine: Engine, params: Object, url: str, rows: Any) -> Object:
    """A page of a list: at most `limit`, and whether there is more."""
    limit = int(params.get("limit", 10))
    if not 1 <= limit <= 100:
        raise StripeError(400, "This value must be between 1 and 100.", param="limit")
    taken: list[Object] = []
    for row in rows:
        if len(taken) == limit:
            return {"object": "list", "url": url, "has_more": True, "data": taken}
        taken.append(row)
    return {"object": "list", "url": url, "has_more": False, "data": taken}


def listing(path: str, kind: str, *filters: str) -> None:
    """GET of a list, filtered by fields of the same name."""

    def list_(engine: Engine, params: Object) -> Object:
        def rows() -> Any:
            created = params.get("created") or {}
            for row in engine.store.newest_first(kind, params.get("starting_after")):
                wanted = all(_same(row, name, params[name]) for name in filters if name in params)
                if wanted and int(created.get("gte", 0)) <= row.get("created", 0) and _in_status(kind, row, params):
                    yield _expanded(engine, row, params)

        return page(engine, params, f"/v1/{path}", rows())

    route("GET", path)(list_)


def _same(row: Object, name: str, wanted: Any) -> bool:
    if name == "lookup_keys":
        return bool(row.get("lookup_key") in wanted)
    if name == "subscription" and row["object"] == "invoice":
        return bool(subscription_of(row) == wanted)
    value = row.get(name)
    return value == is_true(wanted) if isinstance(value, bool) else str(value) == str(wanted)


def _in_status(kind: str, row: Object, params: Object) -> bool:
    # Of subscriptions, those that ended are listed only when they are asked for.
    status = params.get("status")
    if kind == "subscription" and status in (None, "all"):
        return status == "all" or row["status"] not in ("canceled", "incomplete_expired")
    return status is None or row.get("status") == status


def _expanded(engine: Engine, row: Object, params: Object) -> Object:
    shown = dict(row)
    for name in params.get("expand") or []:
        field = name.removeprefix("data.")
        if field == "tax_ids":
            data = list(engine.store.every("tax_id", customer=row["id"]))
        elif field == "payments":
            data = list(engine.store.every("invoice_payment", invoice=row["id"]))
        else:
            raise StripeError(400, f"This property cannot be expanded ({field}).", param="expand")
        shown[field] = {
            "object": "list",
            "data": data,
            "has_more": False,
            "url": f"/v1/{row['object']}s/{row['id']}/{field}",
        }
    return shown


def getting(path: str, kind: str) -> None:
    """GET of one object."""

    def get(engine: Engine, params: Object, id: str) -> Object:
        if engine.store.deleted.get(id) == kind:
            if kind == "customer":
                return {"id": id, "object": kind, "deleted": True}
            raise StripeError(404, f"No such {kind}: '{id}'", code="resource_missing", param="id")
        return _expanded(engine, engine.store.get(id, kind), params)

    route("GET", f"{path}/{{id}}")(get)


def updating(path: str, kind: str, event: str | None, *fields: str) -> None:
    """POST to an object that changes some of its fields."""

    def update(engine: Engine, params: Object, id: str) -> Object:
        found = engine.store.get(id, kind)
        for name, value in params.items():
            if name not in fields:
                raise StripeError(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
            found[name] = is_true(value) if isinstance(found.get(name), bool) else value
        if event:
            engine.store.emit(event, found)
        return found

    route("POST", f"{path}/{{id}}")(update)
