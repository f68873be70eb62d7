"""The ledger on disk: what is acknowledged survives kill -9 and a power cut.

SQLite with a write-ahead log, synced at every commit. One thread uses it at a time.
"""

from __future__ import annotations

import json
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from payment_svc.sandbox.errors import Answer
from payment_svc.sandbox.objects import Page, PaymentIntent, Refund, RefundPage

_SCHEMA = """
CREATE TABLE IF NOT EXISTS payment_intent (
  place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, settle_time INTEGER,
  body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS refund (
  place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, settle_time INTEGER,
  payment_intent TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS refund_payment_intent ON refund (payment_intent);
CREATE INDEX IF NOT EXISTS payment_intent_due ON payment_intent (settle_time)
  WHERE settle_time IS NOT NULL;
CREATE INDEX IF NOT EXISTS refund_due ON refund (settle_time) WHERE settle_time IS NOT NULL;
CREATE TABLE IF NOT EXISTS saved_answer (
  key TEXT PRIMARY KEY, request_sha BLOB NOT NULL, saved_time INTEGER NOT NULL,
  http_code INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class SavedAnswer:
    """The first answer of an idempotency key."""

    request_sha: bytes
    answer: Answer


class Ledger:
    """PaymentIntents, refunds and saved answers in one SQLite file."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._close = weakref.finalize(self, self._db.close)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is stored together, or nothing is."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def put_intent(self, intent: PaymentIntent) -> None:
        """Store a PaymentIntent, new or changed."""
        self._db.execute(
            "INSERT INTO payment_intent (id, settle_time, body) VALUES (?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET settle_time = excluded.settle_time,"
            " body = excluded.body",
            (intent.id, intent.settle_time, intent.model_dump_json()),
        )

    def put_refund(self, refund: Refund) -> None:
        """Store a refund, new or changed."""
        self._db.execute(
            "INSERT INTO refund (id, settle_time, payment_intent, body) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET settle_time = excluded.settle_time,"
            " body = excluded.body",
            (refund.id, refund.settle_time, refund.payment_intent, refund.model_dump_json()),
        )

    def intent(self, intent_id: str) -> PaymentIntent | None:
        """Find one PaymentIntent."""
        rows = self._db.execute("SELECT body FROM payment_intent WHERE id = ?", (intent_id,))
        return next((PaymentIntent.model_validate_json(body) for (body,) in rows), None)

    def refund(self, refund_id: str) -> Refund | None:
        """Find one refund."""
        rows = self._db.execute("SELECT body FROM refund WHERE id = ?", (refund_id,))
        return next((Refund.model_validate_json(body) for (body,) in rows), None)

    def intents(self, page: Page) -> list[PaymentIntent]:
        """One page of PaymentIntents and one more, newest first."""
        rows = self._db.execute(
            "SELECT body FROM payment_intent WHERE :after IS NULL"
            " OR place < (SELECT place FROM payment_intent WHERE id = :after)"
            " ORDER BY place DESC LIMIT :limit + 1",
            {"after": page.starting_after, "limit": page.limit},
        )
        return [PaymentIntent.model_validate_json(body) for (body,) in rows]

    def refunds(self, page: RefundPage) -> list[Refund]:
        """One page of refunds and one more, newest first."""
        rows = self._db.execute(
            "SELECT body FROM refund WHERE (:intent IS NULL OR payment_intent = :intent)"
            " AND (:after IS NULL OR place < (SELECT place FROM refund WHERE id = :after))"
            " ORDER BY place DESC LIMIT :limit + 1",
            {"intent": page.payment_intent, "after": page.starting_after, "limit": page.limit},
        )
        return [Refund.model_validate_json(body) for (body,) in rows]

    def due_intents(self, now: int) -> list[PaymentIntent]:
        """PaymentIntents whose `processing` is over."""
        rows = self._db.execute("SELECT body FROM payment_intent WHERE settle_time <= ?", (now,))
        return [PaymentIntent.model_validate_json(body) for (body,) in rows]

    def due_refunds(self, now: int) -> list[Refund]:
        """Refunds whose `pending` is over."""
        rows = self._db.execute("SELECT body FROM refund WHERE settle_time <= ?", (now,))
        return [Refund.model_validate_json(body) for (body,) in rows]

    def everything(self) -> Iterator[tuple[PaymentIntent, list[Refund]]]:
        """Every PaymentIntent with its refunds, oldest first."""
        refunds: dict[str, list[Refund]] = {}
        for (body,) in self._db.execute("SELECT body FROM refund ORDER BY place"):
            refund = Refund.model_validate_json(body)
            refunds.setdefault(refund.payment_intent, []).append(refund)
        for (body,) in self._db.execute("SELECT body FROM payment_intent ORDER BY place"):
            intent = PaymentIntent.model_validate_json(body)
            yield intent, refunds.get(intent.id, [])

    def saved_answer(self, key: str, not_before: int) -> SavedAnswer | None:
        """Find what a key was answered with, unless that was before `not_before`."""
        rows = self._db.execute(
            "SELECT request_sha, http_code, body FROM saved_answer"
            " WHERE key = ? AND saved_time > ?",
            (key, not_before),
        )
        return next(
            (SavedAnswer(sha, Answer(code, json.loads(body))) for sha, code, body in rows), None
        )

    def save_answer(self, key: str, saved: SavedAnswer, now: int) -> None:
        """Keep the first answer of a key; an expired one is replaced."""
        self._db.execute(
            "INSERT OR REPLACE INTO saved_answer VALUES (?, ?, ?, ?, ?)",
            (key, saved.request_sha, now, saved.answer.http_code, json.dumps(saved.answer.body)),
        )
