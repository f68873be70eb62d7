"""One verb for every saga that a filter finds.

The journal is read page by page, newest first, and a few sagas are asked at a time: neither those
that match nor those that were asked are ever in memory together. A caller that goes away leaves at
most a few verbs behind, which their owners decide as ever.

Each saga is asked under a request id made of the batch's and its own, and of the revision it had
when it was found: the same batch again asks nobody twice, and goes on with those that are left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

from coordinator.api.convert import SAGA_STATES, VERBS, state_of
from coordinator.api.refusals import no_saga_matches, translated
from coordinator.api.verbs import Verbs
from coordinator.core.model import SagaState
from coordinator.core.transitions import LEGAL_VERBS
from coordinator.journal.base import Reader, StoredSaga
from coordinator.journal.verbs import Verb, VerbKind
from mesh.errors import MeshError, Retry
from protos.saga.v1 import saga_pb2 as pb

AT_ONCE = 16
"""Sagas that are asked at the same time."""
PATIENCE_SECONDS = 10.0
"""How long one saga's owner is waited for; longer than it takes to find a new one."""
_PAGE = 100

T = TypeVar("T")
R = TypeVar("R")


class Batches:
    """Asks verbs of many sagas."""

    def __init__(self, reader: Reader, verbs: Verbs) -> None:
        self._reader = reader
        self._verbs = verbs

    async def steer(
        self, request: pb.SteerSagasRequest, request_id: str
    ) -> AsyncGenerator[pb.SteerSagasResponse, None]:
        """What came of each saga that matches, in the order in which they are decided.

        Raises:
            NotFound: NO_SAGA_MATCHES.
            JournalUnavailable: some sagas may have been asked; the same batch again goes on.
        """
        matched = False
        tell = partial(self._told, request, request_id)
        async with (
            aclosing(self._found(request)) as found,
            aclosing(answers(found, tell, at_once=AT_ONCE)) as told,
        ):
            async for response in told:
                matched = True
                yield response
        if not matched:
            raise no_saga_matches(request.filter.definition)

    async def _found(self, request: pb.SteerSagasRequest) -> AsyncGenerator[StoredSaga, None]:
        states = frozenset(map(state_of, request.filter.states))
        before: tuple[int, str] | None = None
        while True:
            page = await self._reader.list_sagas(
                definition=request.filter.definition,
                states=states or _legal_states(VERBS[request.verb]),
                keys=dict(request.filter.keys),
                before=before,
                limit=_PAGE,
            )
            for saga in page:
                yield saga
            if len(page) < _PAGE:
                return
            before = page[-1].created_ms, page[-1].saga_id

    async def _told(
        self, request: pb.SteerSagasRequest, request_id: str, found: StoredSaga
    ) -> pb.SteerSagasResponse:
        response = pb.SteerSagasResponse(
            saga_id=found.saga_id, definition=found.definition, state=SAGA_STATES[found.state]
        )
        verb = _verb(request, request_id, found)
        try:
            with translated():
                response.result = await self._result(verb, found, dry_run=request.dry_run)
        except Retry as later:
            if later.reason != "VERB_PENDING":
                raise
            response.result = pb.STEER_RESULT_PENDING
        except MeshError as refusal:
            response.result, response.explanation = pb.STEER_RESULT_REFUSED, refusal.message
        return response

    async def _result(self, verb: Verb, found: StoredSaga, *, dry_run: bool) -> pb.SteerResult:
        if dry_run:
            await self._verbs.check(verb)
            return pb.STEER_RESULT_WOULD_ASK
        await self._verbs.ask(verb, patience_seconds=PATIENCE_SECONDS, seen_revision=found.revision)
        return pb.STEER_RESULT_ACCEPTED


def _legal_states(kind: VerbKind) -> frozenset[SagaState]:
    return frozenset(state for state, verbs in LEGAL_VERBS.items() if kind.value in verbs)


def _verb(request: pb.SteerSagasRequest, request_id: str, found: StoredSaga) -> Verb:
    return Verb(
        request_id=f"{request_id}/{found.saga_id}",
        saga_id=found.saga_id,
        kind=VERBS[request.verb],
        step=request.step,
        actor=request.actor,
        reason=request.reason,
    )


async def answers(
    questions: AsyncIterator[T], answer: Callable[[T], Coroutine[Any, Any, R]], *, at_once: int
) -> AsyncGenerator[R, None]:
    """The answers in the order in which they are found; a question is taken when there is room.

    When nobody listens any more, or one fails, the others are given up.
    """
    at_work: set[asyncio.Task[R]] = set()
    try:
        async for question in questions:
            at_work.add(asyncio.create_task(answer(question)))
            if len(at_work) == at_once:
                yield await _first(at_work)
        while at_work:
            yield await _first(at_work)
    finally:
        for task in at_work:
            task.cancel()
        await asyncio.gather(*at_work, return_exceptions=True)


async def _first(at_work: set[asyncio.Task[R]]) -> R:
    """The result of a task that has ended, which is taken out."""
    done, _ = await asyncio.wait(at_work, return_when=asyncio.FIRST_COMPLETED)
    task = done.pop()
    at_work.remove(task)
    return task.result()
