"""A Stripe-shaped payment provider for one machine; the `stripe` SDK cannot tell the difference.

It speaks Stripe's HTTP for PaymentIntents and refunds, keeps its ledger on disk, and imitates what
makes a provider hard: saved answers that are replayed (errors 500 too), keys in use, keys that
expire, payments that are processed for a while, refunds that fail, answers that are lost.

    app            HTTP: keys in use, latency, answers that are lost
    operations     one call inside one transaction: replay, or perform and save the answer
    rules          what an operation does to a PaymentIntent or refund; pure
    cards          the test payment methods
    objects        what Stripe calls its objects, requests and errors: their shapes
    ledger         SQLite
    switches       latency and faults, set by environment or while it runs

Run it with `python -m payment_svc.sandbox`.
"""

from __future__ import annotations
