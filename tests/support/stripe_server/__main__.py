"""The stand-in as a program: `python -m tests.support.stripe_server PORT [WEBHOOK_URL]`."""

import os
import sys
import threading

from .server import Stripe

with Stripe(int(sys.argv[1])) as running:
    for address in sys.argv[2:]:
        made = running.call("POST", "/v1/webhook_endpoints", {"url": address, "enabled_events": ["*"]})
        running.store.get(made["id"])["secret"] = os.environ["STRIPE_WEBHOOK_SECRET"]
    threading.Event().wait()
