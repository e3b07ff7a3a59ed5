"""Stripe's events received and applied, beside Supabase's own library; a backfill; access; usage rolled up."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from rowhouse.local import platform
from rowhouse.local.account import shared_home
from rowhouse.local.cluster import SUPERUSER
from rowhouse.local.instance import Instance

from tests.billing.world import Billing
from tests.identities import as_user, make_user, make_workspace, one, run
from tests.server import Server, free_port
from tests.support.stripe_server import Stripe

from .houses import house
from .queueing import HOME, install

Rows = list[list[str]]
EVENTS, SUBSCRIPTIONS, ROUNDS = 3_000, 500, 3
HERE = Path(__file__).parent
SECRET = "whsec_bench"  # noqa: S105  of a server that lives for a minute


def subscription_event(place: int, created: int, said: int) -> dict[str, Any]:
    """customer.subscription.updated, as Stripe sends it."""
    name = f"{place:05d}"
    recurring = {"interval": "month", "interval_count": 1, "usage_type": "licensed", "meter": None}
    plan = {"rowhouse_plan": "pro", "rowhouse_version": "1"}
    price = {"id": "price_1", "object": "price", "active": True, "billing_scheme": "per_unit", "currency": "usd"}
    price |= {"lookup_key": "pro_monthly", "metadata": plan, "product": "rowhouse_pro", "recurring": recurring}
    price |= {"type": "recurring", "unit_amount": 2900, "unit_amount_decimal": "2900", "nickname": None}
    item = {"id": f"si_{name}", "object": "subscription_item", "quantity": 1, "subscription": f"sub_{name}"}
    item |= {"metadata": {}, "discounts": [], "tax_rates": [], "price": price, "created": 1_700_000_000}
    item |= {"current_period_start": 1_790_000_000, "current_period_end": 1_830_000_000}
    items = {"object": "list", "has_more": False, "url": "/v1/subscription_items", "data": [item]}
    subscription = {"id": f"sub_{name}", "object": "subscription", "livemode": False, "customer": f"cus_{name}"}
    subscription |= {"status": "active", "currency": "usd", "created": 1_700_000_000, "start_date": 1_700_000_000}
    subscription |= {"cancel_at": None, "cancel_at_period_end": False, "canceled_at": None, "ended_at": None}
    subscription |= {"collection_method": "charge_automatically", "default_payment_method": "pm_1", "discounts": []}
    subscription |= {"latest_invoice": f"in_{name}", "metadata": {"said": str(said)}, "pause_collection": None}
    subscription |= {"trial_end": None, "trial_start": None, "billing_cycle_anchor": 1_700_000_000, "items": items}
    return {
        "id": f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "type": "customer.subscription.updated",
        "livemode": False,
        "created": created,
        "api_version": "2026-10-28.endive",
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "data": {"object": subscription},
    }


def _file(folder: Path, count: int, secret: str, base: int) -> Path:
    signer = Stripe()
    file = folder / f"{base}.jsonl"
    with file.open("w") as lines:
        for place in range(count):
            body = json.dumps(subscription_event(place % SUBSCRIPTIONS, base + place // SUBSCRIPTIONS, place), indent=2)
            lines.write(json.dumps({"body": body, "signature": signer.signature(body.encode(), [secret])}) + "\n")
    return file


def _post(url: str, at_once: int, file: Path) -> float:
    command = ["node", str(HERE / "post.mjs"), url, str(at_once), str(file)]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert answer["failed"] == 0, answer
    return float(answer["seconds"])


def _applied(connection: psycopg.Connection[Any]) -> None:
    while one(connection, "select count(*) from billing.events where outcome = 'waiting'"):
        time.sleep(0.005)


def webhooks() -> Rows:
    """Events a second over HTTP, signature checked, until each is applied: ten at once, and one by one."""
    install()
    instance = Instance(shared_home() / f"demo-{os.getpid()}")
    contender: subprocess.Popen[str] | None = None
    try:
        state = platform.up(instance, durable=True, free_ports=True)
        secret = state.providers["STRIPE_WEBHOOK_SECRET"]
        with psycopg.connect(state.url_of(SUPERUSER), autocommit=True) as root:
            run(root, "create database sync_engine")
        with (
            psycopg.connect(state.database_url, autocommit=True) as connection,
            tempfile.TemporaryDirectory() as folder,
        ):
            _customers(connection, SUBSCRIPTIONS)
            port = free_port()
            engine_url = state.url_of(SUPERUSER).replace("/postgres", "/sync_engine")
            contender = subprocess.Popen(
                [HOME / "node_modules/node/bin/node", HOME / "stripe-sync-engine.mjs", engine_url, str(port), SECRET],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert contender.stdout is not None
            assert contender.stdout.readline().strip() == "ready"
            ours = f"http://127.0.0.1:{state.ports['functions']}/stripe-webhook"
            theirs = f"http://127.0.0.1:{port}/"
            rates: dict[tuple[str, int], list[float]] = {}
            base = int(time.time()) - 1_000_000
            for turn in range(ROUNDS + 1):
                for at_once in (10, 1):
                    base += 10_000
                    count = EVENTS if at_once == 10 else EVENTS // 3
                    seconds = _post(theirs, at_once, _file(Path(folder), count, SECRET, base))
                    rates.setdefault(("theirs", at_once), []).append(count / seconds)
                    file = _file(Path(folder), count, secret, base)
                    begun = time.perf_counter()
                    answered = _post(ours, at_once, file)
                    _applied(connection)
                    # From the first request to the last event that is applied, without Node's own start.
                    seconds = max(answered, time.perf_counter() - begun - 0.05)
                    if turn:
                        rates.setdefault(("ours", at_once), []).append(count / seconds)
                        rates.setdefault(("answered", at_once), []).append(count / answered)
            with psycopg.connect(engine_url, autocommit=True) as engine:
                assert one(engine, "select count(*) from stripe.subscriptions") == SUBSCRIPTIONS
            assert (
                one(connection, "select count(*) from billing.objects where object = 'subscription'") == SUBSCRIPTIONS
            )
    finally:
        if contender is not None:
            contender.kill()
        platform.down(instance)
        instance.remove()
    rows = []
    for at_once in (10, 1):
        best = statistics.median(rates["theirs", at_once][1:])
        applied, answered = (statistics.median(rates[name, at_once]) for name in ("ours", "answered"))
        words = "ten at once" if at_once == 10 else "one by one"
        rows.append([words, f"{best:,.0f}/s", f"{answered:,.0f}/s", f"{applied:,.0f}/s", f"{applied / best:.2f} ×"])
    return rows


def _customers(connection: psycopg.Connection[Any], count: int) -> None:
    run(connection, "update billing.settings set account_id = 'acct_bench'")
    owner = make_user(connection)
    for place in range(count):
        workspace = make_workspace(connection, owner, plan="free")
        run(
            connection,
            "update billing.customers set stripe_id = %s where workspace_id = %s",
            [f"cus_{place:05d}", workspace],
        )
    run(connection, "delete from jobs.jobs where kind = 'billing.call'")


def deciding(server: Server) -> Rows:
    """In SQL alone: events received, applied; access read; the door with and without its question; usage."""
    rows: Rows = []
    with house(server, 100, 100) as database, database.connect(autocommit=True) as connection:
        _customers(connection, SUBSCRIPTIONS)
        base = int(time.time()) - 1_000_000
        received, learnt = [], []
        for turn in range(ROUNDS + 1):
            events = [
                subscription_event(n % SUBSCRIPTIONS, base + turn * 1000 + n // SUBSCRIPTIONS, n) for n in range(EVENTS)
            ]
            begun = time.perf_counter()
            for event in events:
                connection.execute("select billing.receive(%s)", [Jsonb(event)])
            received.append(EVENTS / (time.perf_counter() - begun))
            jobs = one(connection, "select count(*) from jobs.jobs where kind = 'billing.learn'")
            begun = time.perf_counter()
            while (token := one(connection, "select jobs.claim_for_postgres('{billing}')")) is not None:
                run(connection, "select jobs.execute(%s, 60)", [token])
            learnt.append(jobs / (time.perf_counter() - begun))
        rows.append(["events received, one connection", f"{statistics.median(received[1:]):,.0f}/s", ""])
        rows.append(["objects learnt and decided, one connection", f"{statistics.median(learnt[1:]):,.0f}/s", ""])
        workspace = one(connection, "select workspace_id from billing.customers where stripe_id = 'cus_00001'")
        nothing = _median(connection, "select %s::uuid", [workspace])
        access = _median(connection, "select * from billing.access(%s)", [workspace]) - nothing
        rows.append(["`billing.access`", f"{access * 1000:.3f} ms", "asked: 0.2 ms"])
        user = one(connection, "select user_id from public.workspace_members group by 1 order by count(*) desc limit 1")
        with as_user(connection, user):
            run(connection, "set local plan_cache_mode = auto")
            reads = _median(connection, "select count(*) from authz.workspaces_with('projects.read')")
            writes = _median(connection, "select count(*) from authz.workspaces_with('projects.create')")
            count = one(connection, "select count(*) from authz.workspaces_with('projects.read')")
        rows.append([f"the door, {count} workspaces, reading", f"{reads * 1000:.2f} ms", ""])
        rows.append(["the same, writing: access is asked", f"{writes * 1000:.2f} ms", f"{writes / reads:.2f} ×"])
    return rows


def _median(
    connection: psycopg.Connection[Any], query: str, parameters: list[Any] | None = None, times: int = 300
) -> float:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        connection.execute(query.encode(), parameters).fetchall()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def using(server: Server, events: int = 1_000_000) -> Rows:
    """Usage recorded with its roll-ups, beside the same rows inserted alone."""
    with house(server, 10, 10) as database, database.connect(autocommit=True) as connection:
        run(connection, "insert into billing.meters (meter, name) values ('calls', 'Calls')")
        owner = make_user(connection)
        workspaces = [make_workspace(connection, owner, plan="free") for _ in range(20)]
        run(connection, "create table public.bare_usage (like billing.usage_events including all)")
        begun_at = one(connection, "select now() - interval '20 days'")
        bare = rolled = 0.0
        bare_insert = (
            "insert into public.bare_usage (workspace_id, idempotency_key, meter, quantity, used_at) "
            "select %s, e.idempotency_key, e.meter, e.quantity, e.at "
            "from jsonb_to_recordset(%s) as e (meter text, quantity bigint, idempotency_key text, at timestamptz) "
            "on conflict do nothing"
        )
        for batch in range(events // 10_000):
            workspace = workspaces[batch % 20]
            day = f"{begun_at:%Y-%m-%d}"
            document = Jsonb(
                [
                    {
                        "meter": "calls",
                        "quantity": n % 9 + 1,
                        "idempotency_key": f"{batch}-{n}",
                        "at": f"{day}T{n % 24:02d}:{n % 60:02d}:00Z",
                    }
                    for n in range(10_000)
                ]
            )
            begun = time.perf_counter()
            connection.execute(bare_insert.encode(), [workspace, document])
            middle = time.perf_counter()
            run(connection, "select billing.record_usage_many(%s, %s)", [workspace, document])
            bare, rolled = bare + middle - begun, rolled + time.perf_counter() - middle
        assert one(connection, "select sum(event_count) from billing.usage_hours") == events
        row = [
            f"{events:,} events, 10,000 a call",
            f"{events / bare:,.0f}/s",
            f"{events / rolled:,.0f}/s",
            f"{bare / rolled:.2f}",
        ]
        single_bare = _median(
            connection,
            "insert into public.bare_usage values (%s, gen_random_uuid()::text, 'calls', 1, now(), now()) returning 1",
            [workspaces[0]],
            2000,
        )
        single = _median(
            connection, "select billing.record_usage(%s, 'calls', 1, gen_random_uuid()::text)", [workspaces[0]], 2000
        )
        return [row, ["one a call", f"{1 / single_bare:,.0f}/s", f"{1 / single:,.0f}/s", f"{single_bare / single:.2f}"]]


def backfilling(server: Server, objects: int = 100_000) -> Rows:
    """A backfill from nothing: objects a second, and the memory of the process that carries it."""
    rows = []
    with Stripe() as stripe:
        for place in range(objects):
            coupon = {
                "name": f"Coupon {place}",
                "percent_off": 5.0,
                "amount_off": None,
                "currency": None,
                "valid": True,
            }
            coupon |= {
                "duration": "once",
                "metadata": {},
                "times_redeemed": 0,
                "max_redemptions": None,
                "redeem_by": None,
            }
            stripe.store.make("coupon", coupon)
        for share in (10, 1):
            with house(server, 10, 10) as database, database.connect(autocommit=True) as connection:
                Billing(connection, stripe).connect()
                if share > 1:
                    stripe.store.kinds["coupon"], kept = (
                        stripe.store.kinds["coupon"][: objects // share],
                        stripe.store.kinds["coupon"],
                    )
                script = (
                    "import resource; from rowhouse import stripe_account as s; from rowhouse.database import connect\n"
                    "with connect() as c:\n"
                    "    run = s.start_run(c, 'sync', ['coupon']); c.commit()\n"
                    "    for outcome in s.carry(c, {'run': str(run)}): s.refuse_unless_done(outcome)\n"
                    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
                )
                environment = {**os.environ, "DATABASE_URL": database.url()}
                environment |= {"STRIPE_SECRET_KEY": stripe.key, "STRIPE_API_URL": stripe.url}
                begun = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
                )
                seconds = time.perf_counter() - begun
                read = one(connection, "select count(*) from billing.objects where object = 'coupon'")
                assert read == objects // share
                rows.append([f"{read:,} objects", f"{read / seconds:,.0f}/s", f"{int(done.stdout) // 1024} MB"])
                if share > 1:
                    stripe.store.kinds["coupon"] = kept
    return rows
