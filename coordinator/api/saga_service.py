"""saga.v1.SagaService: start sagas, look at them, steer them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from itertools import islice
from urllib.parse import unquote

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from coordinator.api import paging, validate
from coordinator.api.convert import (
    condition_message,
    event_message,
    listed_saga_message,
    saga_message,
    state_of,
)
from coordinator.api.ends import Ends
from coordinator.api.explain import View, explain, explain_unreadable, waits_for
from coordinator.api.ports import Sagas
from coordinator.api.reconcile import reconcile
from coordinator.api.refusals import (
    RPCS,
    DefinitionNotRunnable,
    HistoryNotReadable,
    saga_not_found,
    translated,
)
from coordinator.api.start import Starts
from coordinator.api.start_sagas import StartStreams
from coordinator.api.steer import Batches
from coordinator.api.stored import LoadedSaga, StoredSagas
from coordinator.api.verbs import Verbs
from coordinator.core.saga import open_steps
from coordinator.core.words import legal_verbs
from coordinator.definitions.base import Definitions
from coordinator.journal.base import Reader, Standing
from coordinator.journal.verbs import Verb, VerbKind
from coordinator.reconciliation.reconciler import Reconciler
from mesh.errors import RecordMissing
from mesh.rpc.served import Context
from mesh.validation import refuse_if_any
from protos.saga.v1 import saga_pb2 as pb
from protos.saga.v1 import saga_pb2_grpc

MAX_PATIENCE_SECONDS = 30.0
"""How long an answer is waited for when the client sets no deadline; for a verb never longer."""
_TIME_TO_ANSWER_SECONDS = 0.2
_PROPAGATOR = TraceContextTextMapPropagator()


class SagaService(saga_pb2_grpc.SagaServiceServicer):
    """Answers SagaService. `now_ms` is the engine's clock, `new_id` makes UUIDv7s."""

    def __init__(
        self,
        sagas: Sagas,
        reader: Reader,
        definitions: Definitions,
        reconciler: Reconciler,
        *,
        now_ms: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._sagas = sagas
        self._reader = reader
        self._now_ms = now_ms
        self._new_id = new_id
        self._stored = StoredSagas(reader, definitions, sagas)
        self._starts = Starts(sagas, definitions, self._stored, new_id=new_id)
        self._ends = Ends(sagas, self._stored)
        self._start_streams = StartStreams(self._starts, sagas)
        self._verbs = Verbs(sagas, reader, self._stored)
        self._batches = Batches(reader, self._verbs)
        self._reconciler = reconciler

    def drain(self) -> None:
        """Let no client wait for the end of a saga any longer, and end the streams that start some.

        Each is told what is on disk.
        """
        self._ends.drain()
        self._start_streams.drain()

    def _message(self, loaded: LoadedSaga) -> pb.Saga:
        return saga_message(loaded.saga, loaded.version.input_type, now_ms=self._now_ms())

    # --- start ----------------------------------------------------------------

    @override
    async def StartSaga(
        self, request: pb.StartSagaRequest, context: Context
    ) -> pb.StartSagaResponse:
        """Start a saga, or find the one that the same request has started, and wait if asked.

        Raises:
            InvalidRequest: with every field that is wrong; nothing was written.
            NotFound: DEFINITION_NOT_FOUND.
            AlreadyExists: SAGA_ID_REUSED.
            Retry, Overloaded: not now; the same request may be sent again.
        """
        refuse_if_any(validate.start_violations(request))
        with translated():
            loaded = await self._starts.start(request, _traceparent())
            if request.wait:
                loaded = await self._ends.wait(loaded, _seconds_left(context))
        return pb.StartSagaResponse(saga=self._message(loaded))

    @override
    async def StartSagas(
        self, requests: AsyncIterator[pb.StartSagasRequest], context: Context
    ) -> None:
        """Start many sagas over one stream; see `start_sagas`."""
        await self._start_streams.serve(requests, context.write, _traceparent())

    # --- look -----------------------------------------------------------------

    @override
    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> pb.GetSagaResponse:
        """Read one saga as it is on disk.

        Raises:
            NotFound: SAGA_NOT_FOUND.
        """
        return pb.GetSagaResponse(saga=self._message(await self._load(request.saga_id)))

    @override
    async def ExplainSaga(
        self, request: pb.ExplainSagaRequest, context: Context
    ) -> pb.ExplainSagaResponse:
        """Say why a saga is where it is, also of one that cannot be read.

        Raises:
            NotFound: SAGA_NOT_FOUND.
        """
        standing = await self._standing(request.saga_id)
        try:
            saga = (await self._load(request.saga_id)).saga
        except (HistoryNotReadable, DefinitionNotRunnable, RecordMissing) as unreadable:
            words = explain_unreadable(request.saga_id, standing, unreadable.message)
            return pb.ExplainSagaResponse(explanation=words)
        conditions = {service: self._sagas.circuit_of(service) for service in waits_for(saga)}
        by_name = {condition.participant: condition for condition in conditions.values()}
        view = View(
            conditions=conditions,
            owner=standing.owner,
            here=self._sagas.instance_id,
            now_ms=self._now_ms(),
            parked_until_ms=standing.parked_until_ms,
        )
        return pb.ExplainSagaResponse(
            explanation=explain(saga, view),
            legal_verbs=[RPCS[VerbKind(verb)] for verb in legal_verbs(saga)],
            participants=map(condition_message, by_name.values()),
        )

    async def _standing(self, saga_id: str) -> Standing:
        refuse_if_any(validate.saga_id_violations(saga_id))
        with translated():
            standing = (await self._reader.standings([saga_id])).get(saga_id)
        if standing is None:
            raise saga_not_found(saga_id)
        return standing

    async def _load(self, saga_id: str) -> LoadedSaga:
        refuse_if_any(validate.saga_id_violations(saga_id))
        with translated():
            return await self._stored.load(saga_id)

    @override
    async def ListSagas(
        self, request: pb.ListSagasRequest, context: Context
    ) -> pb.ListSagasResponse:
        """List sagas, newest first."""
        refuse_if_any(validate.list_sagas_violations(request))
        place = paging.read_token(request, paging.SAGA_PLACE)
        with translated():
            found = await self._reader.list_sagas(
                definition=request.definition,
                states=frozenset(state_of(state) for state in request.states),
                keys=dict(request.keys),
                before=(int(place[0]), place[1]) if place else None,
                limit=paging.size(request) + 1,
            )
        sagas, token = paging.page(
            request,
            [listed_saga_message(stored) for stored in found],
            lambda saga: f"{saga.create_time.ToMilliseconds()}/{saga.saga_id}",
        )
        return pb.ListSagasResponse(sagas=sagas, next_page_token=token)

    @override
    async def ListSagaEvents(
        self, request: pb.ListSagaEventsRequest, context: Context
    ) -> pb.ListSagaEventsResponse:
        """List what has happened to a saga, oldest first.

        Raises:
            NotFound: SAGA_NOT_FOUND.
        """
        refuse_if_any(validate.list_events_violations(request))
        place = paging.read_token(request, paging.EVENT_PLACE)
        after = int(place[0]) if place else 0
        with translated():
            history = await self._stored.history(request.saga_id)
        newer = (event_message(it.entry, it.saga) for it in islice(history, after, None))
        events, token = paging.page(
            request,
            list(islice(newer, paging.size(request) + 1)),
            lambda event: str(event.revision),
        )
        return pb.ListSagaEventsResponse(events=events, next_page_token=token)

    @override
    async def WatchSaga(
        self, request: pb.WatchSagaRequest, context: Context
    ) -> AsyncGenerator[pb.WatchSagaResponse, None]:
        """Stream the events of a saga after a revision, until the final one.

        Raises:
            NotFound: SAGA_NOT_FOUND.
        """
        refuse_if_any(validate.watch_violations(request))
        with translated():
            async with aclosing(self._stored.follow(request.saga_id)) as moments:
                async for it in moments:
                    if it.entry.revision > request.after_revision:
                        yield pb.WatchSagaResponse(event=event_message(it.entry, it.saga))

    # --- steer ----------------------------------------------------------------

    @override
    async def CancelSaga(
        self, request: pb.CancelSagaRequest, context: Context
    ) -> pb.CancelSagaResponse:
        """Abort a saga that goes forward. Refusals: see `Verbs.ask`."""
        loaded = await self._ask(VerbKind.CANCEL, request, context)
        return pb.CancelSagaResponse(saga=self._message(loaded))

    @override
    async def RetrySaga(
        self, request: pb.RetrySagaRequest, context: Context
    ) -> pb.RetrySagaResponse:
        """Let a STUCK saga go on. Refusals: see `Verbs.ask`."""
        loaded = await self._ask(VerbKind.RETRY, request, context)
        return pb.RetrySagaResponse(saga=self._message(loaded))

    @override
    async def SkipStep(self, request: pb.SkipStepRequest, context: Context) -> pb.SkipStepResponse:
        """Mark a step of a STUCK saga as undone by hand. Refusals: see `Verbs.ask`."""
        loaded = await self._ask(VerbKind.SKIP, request, context, step=request.step)
        return pb.SkipStepResponse(saga=self._message(loaded))

    @override
    async def AbandonSaga(
        self, request: pb.AbandonSagaRequest, context: Context
    ) -> pb.AbandonSagaResponse:
        """End a STUCK saga with its effects left open. Refusals: see `Verbs.ask`."""
        loaded = await self._ask(VerbKind.ABANDON, request, context)
        return pb.AbandonSagaResponse(
            saga=self._message(loaded), open_steps=open_steps(loaded.saga)
        )

    @override
    async def SteerSagas(
        self, request: pb.SteerSagasRequest, context: Context
    ) -> AsyncGenerator[pb.SteerSagasResponse, None]:
        """Ask a verb of every saga that a filter finds; stream what comes of each.

        Raises:
            InvalidRequest: with every field that is wrong; nothing was asked.
            NotFound: NO_SAGA_MATCHES.
            Retry: not all were asked; the same request goes on where this one stopped.
        """
        refuse_if_any(validate.steer_violations(request))
        request_id = request.request_id or self._new_id()
        with translated():
            async with aclosing(self._batches.steer(request, request_id)) as told:
                async for response in told:
                    yield response

    # --- compare --------------------------------------------------------------

    @override
    async def ReconcileEffects(
        self, request: pb.ReconcileEffectsRequest, context: Context
    ) -> AsyncGenerator[pb.ReconcileEffectsResponse, None]:
        """Compare what participants hold with the journal.

        Raises:
            InvalidRequest: there is no such participant.
        """
        async with aclosing(reconcile(request, self._reconciler)) as found:
            async for response in found:
                yield response

    async def _ask(
        self, kind: VerbKind, request: validate.VerbRequest, context: Context, *, step: str = ""
    ) -> LoadedSaga:
        refuse_if_any(validate.verb_violations(request))
        verb = Verb(
            request_id=request.request_id or self._new_id(),
            saga_id=request.saga_id,
            kind=kind,
            step=step,
            actor=request.actor or _client(context),
            reason=request.reason,
            revision=request.revision,
        )
        with translated():
            await self._verbs.ask(verb, patience_seconds=_patience(context))
            return await self._stored.load(verb.saga_id)


def _traceparent() -> str:
    """The span of this RPC as a W3C traceparent; empty when nothing is traced."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")


def _patience(context: Context) -> float:
    return min(_seconds_left(context), MAX_PATIENCE_SECONDS)


def _seconds_left(context: Context) -> float:
    """How long the answer may be waited for."""
    left = context.time_remaining()
    return MAX_PATIENCE_SECONDS if left is None else left - _TIME_TO_ANSWER_SECONDS


def _client(context: Context) -> str:
    """Who asks, if they do not say: their machine; without a port, which would change."""
    transport, _, address = unquote(context.peer()).partition(":")
    return f"client at {address.rpartition(':')[0] or transport}"
