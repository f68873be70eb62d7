"""Verbs: what operators and clients ask of the sagas that this instance owns.

Any instance posts a verb into the journal's inbox; only the owner turns it into an event, in the
saga's own order, so that a cancel and a completion, or two operators, cannot both win. A verb is
accepted in the same transaction as its event, or refused with the reason. One that is bound to a
revision is refused when the saga has another when the verb's turn comes: who asked has not seen it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import assert_never

import structlog

from coordinator.core.events import Abandoned, Event, Retried, StepSkipped
from coordinator.core.model import Failure, FailureKind
from coordinator.core.transitions import IllegalEvent
from coordinator.engine.live import Intent, Live
from coordinator.engine.ports import Ports
from coordinator.engine.runner import Runner
from coordinator.engine.suspects import AwaitsTrial
from coordinator.engine.unrunnable import NotRunnable
from coordinator.journal.base import JournalUnavailable, Lease
from coordinator.journal.verbs import Verb, VerbKind

log = structlog.get_logger(__name__)


class Inbox:
    """Hands verbs to the runner."""

    def __init__(
        self,
        ports: Ports,
        runner: Runner,
        *,
        load: Callable[[Lease, str], Awaitable[Live | None]],
        poll_seconds: float,
    ) -> None:
        """`load` brings a saga of this instance into memory; None when it is final or not ours.

        It may raise NotRunnable, or AwaitsTrial for one that must not be run yet.
        """
        self._ports = ports
        self._runner = runner
        self._load = load
        self._poll_seconds = poll_seconds
        self._posted = asyncio.Event()
        self._taken: dict[str, Live] = {}
        """Verbs that a saga in memory will decide; one that is dropped before decides nothing."""
        self._refusals: dict[str, str] = {}
        """Explanations by request id, until the journal has them."""

    def wake(self) -> None:
        """A verb was posted in this process: look at once."""
        self._posted.set()

    async def run(self, lease: Lease) -> None:
        """Look for verbs until cancelled.

        Raises:
            LeaseLost: the lease is not held any more.
        """
        self._taken.clear()
        self._refusals.clear()
        while True:
            self._posted.clear()
            try:
                await self._look(lease)
            except JournalUnavailable:
                log.debug("inbox.journal_away")
            # Not `wait_for`: before Python 3.12 it loses a cancellation that meets a wake-up.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._posted.wait()

    async def _look(self, lease: Lease) -> None:
        await self._refuse_told()
        verbs = await self._ports.journal.pending_verbs(lease)
        pending = {verb.request_id for verb in verbs}
        self._taken = {
            request_id: live
            for request_id, live in self._taken.items()
            if request_id in pending and not live.dropped
        }
        for verb in verbs:
            if verb.request_id not in self._taken:
                await self._take(lease, verb)
        await self._refuse_told()

    async def _take(self, lease: Lease, verb: Verb) -> None:
        try:
            live = self._runner.get(verb.saga_id) or await self._load(lease, verb.saga_id)
        except NotRunnable as error:
            await self._ports.journal.refuse_verb(verb.request_id, f"it cannot be run: {error}")
            return
        except AwaitsTrial:
            return  # it is asked again with the next look
        if live is None:
            await self._ports.journal.refuse_verb(verb.request_id, "the saga is final")
            return
        intent = Intent(
            make=partial(self._event, verb),
            verb_id=verb.request_id,
            illegal=partial(self._refuse, verb.request_id),
        )
        self._taken[verb.request_id] = live
        self._runner.submit(live, intent)

    def _refuse(self, request_id: str, error: IllegalEvent) -> None:
        self._refusals[request_id] = str(error)
        self._posted.set()

    async def _refuse_told(self) -> None:
        for request_id, explanation in list(self._refusals.items()):
            await self._ports.journal.refuse_verb(request_id, explanation)
            del self._refusals[request_id]

    def _event(self, verb: Verb, live: Live) -> Event:
        if verb.revision not in (0, live.saga.revision):
            raise IllegalEvent(f"it is at revision {live.saga.revision}, not at {verb.revision}")
        now_ms = self._ports.clock.now_ms()
        match verb.kind:
            case VerbKind.CANCEL:
                return self._runner.aborted(
                    live, _cancelled(verb), actor=verb.actor, note=verb.reason
                )
            case VerbKind.RETRY:
                return Retried(time_ms=now_ms, actor=verb.actor, note=verb.reason)
            case VerbKind.SKIP:
                return StepSkipped(
                    time_ms=now_ms, step=verb.step, actor=verb.actor, note=verb.reason
                )
            case VerbKind.ABANDON:
                return Abandoned(time_ms=now_ms, actor=verb.actor, note=verb.reason)
            case _:
                assert_never(verb.kind)


def _cancelled(verb: Verb) -> Failure:
    return Failure(
        kind=FailureKind.REFUSED, code="CANCELLED", reason="SAGA_CANCELLED", message=verb.reason
    )
