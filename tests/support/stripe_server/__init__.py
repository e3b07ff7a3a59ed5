"""A Stripe that keeps state: subscriptions that renew, invoices that are paid or declined, events that are signed.

It speaks Stripe's wire format, before and after 2025-03-31, and is only ever driven through Stripe's own SDKs. `Stripe`
runs it on a port of the loopback interface. What it has no opinion on it refuses.
"""

from .server import Stripe

__all__ = ["Stripe"]
