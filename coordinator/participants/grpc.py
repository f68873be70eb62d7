"""Calls to participants over gRPC: one channel for each, bytes in and bytes out.

An attempt ends with one answer, whatever happens: an OK, a refusal read from the wire, a time-out,
this process closing. A participant that is away fails its attempts at once: its gate and the saga's
own retry policy wait, where everybody can see it. What is asked seldom (health, effects) goes by
grpc's own channels.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import trace
from opentelemetry.trace import Span

from coordinator.core.model import Direction, Failure, FailureKind
from coordinator.participants import answers
from coordinator.participants.addresses import addresses_of
from coordinator.participants.base import Answer, Attempt, Contract, Failed, Ways
from coordinator.participants.spans import method_of, start_span, traceparent_of
from coordinator.participants.stream import SERVICE as STREAM_SERVICE
from coordinator.participants.streams import Streams
from mesh.errors import read_refusal
from mesh.rpc.calling import Outcome
from mesh.rpc.channel import Channel
from mesh.rpc.headers import Ending, Field
from mesh.step import SAGA_ID, SAGA_NOT_AFTER, SAGA_OUTCOME, SAGA_STEP

log = structlog.get_logger(__name__)

CHANNEL_OPTIONS = (
    # A Compensate carries a request and a response of 1 MiB each.
    ("grpc.max_send_message_length", 4 << 20),
    ("grpc.max_receive_message_length", 4 << 20),
    # Of several addresses each gets its share, and one that is away is left out.
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    # A participant that comes back is found within two seconds, not within two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A machine that vanished is noticed while a call waits for it, before the next one is sent.
    # Not more often: servers in other languages hang up on clients that ping much.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Participants are part of the mesh; a proxy for the outside world is not meant for them.
    ("grpc.enable_http_proxy", 0),
)

_HEALTH_SECONDS = 1.0
_SAGA_ID, _SAGA_STEP, _NOT_AFTER = SAGA_ID.encode(), SAGA_STEP.encode(), SAGA_NOT_AFTER.encode()
_REJECTED = (SAGA_OUTCOME, "rejected")
_NO_HEALTH_SERVICE = frozenset({grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND})
"""Answers of one that does not tell how it is; but it answers."""


class GrpcParticipants:
    """The participants that are known by address. `targets` maps their names to gRPC targets.

    Made inside the event loop that it is used in. Which participant serves which step is told by
    `route`, again whenever that may have changed.
    """

    def __init__(
        self,
        targets: Mapping[str, str],
        *,
        tracer_provider: trace.TracerProvider | None = None,
        streams: bool = True,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Without `streams` every call is made by itself, also where a participant offers them."""
        self._channels = {participant: _channel(target) for participant, target in targets.items()}
        self._health = {
            participant: health_pb2_grpc.HealthStub(channel)
            for participant, channel in self._channels.items()
        }
        self._contracts: dict[str, Contract] = {}
        self._servers: dict[str, str] = {}
        self._calls = {participant: Channel(target) for participant, target in targets.items()}
        self._methods: dict[tuple[str, Direction], tuple[Channel, str]] = {}
        self._closing = False
        self._tracer = trace.get_tracer("coordinator.participants", tracer_provider=tracer_provider)
        self._alone = Counter[str]()
        self._stream_channels: list[Channel] = []
        self._streams = {
            participant: self._kept(participant, target, chance)
            for participant, target in targets.items()
            if streams
        }

    def _kept(self, participant: str, target: str, chance: Callable[[], float]) -> Streams:
        """Streams on channels of their own, one for each address."""
        channels = [Channel(address) for address in addresses_of(target)]
        self._stream_channels += channels
        return Streams(
            participant, channels, unsent=self._call_alone, tracer=self._tracer, chance=chance
        )

    @property
    def channels(self) -> Mapping[str, grpc.aio.Channel]:
        """The channels to the participants, by their names."""
        return self._channels

    @property
    def ways(self) -> Sequence[Ways]:
        """How calls to each participant travel."""
        return tuple(
            Ways(
                participant=participant,
                streams=streams.open if streams else 0,
                streamed=streams.calls if streams else 0,
                alone=self._alone[participant],
            )
            for participant in self._channels
            for streams in (self._streams.get(participant),)
        )

    def route(self, contracts: Iterable[Contract]) -> None:
        """Take what these participants serve as the truth; what is known of others stays."""
        told = {contract.participant: contract for contract in contracts}
        self._contracts |= told
        self._methods = {
            (service, direction): (self._calls[participant], f"/{method_of(service, direction)}")
            for participant, contract in self._contracts.items()
            for service in contract.services
            for direction in Direction
        }
        self._servers = {
            service: participant
            for participant, contract in self._contracts.items()
            for service in contract.services
        }
        for participant in told.keys() & self._streams.keys():
            if STREAM_SERVICE in told[participant].services:
                self._streams[participant].offered()
            else:
                self._streams[participant].withdrawn()

    def whose(self, service: str) -> str:
        """Name of the participant that serves a step service; the service itself if nobody does."""
        return self._servers.get(service, service)

    async def serving(self, participant: str) -> bool:
        """Whether its health service says SERVING; see `Participants.serving`."""
        health = self._health.get(participant)
        if health is None:
            return self._complete or participant in self._servers
        try:
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_SECONDS)
        except grpc.aio.AioRpcError as error:
            return error.code() in _NO_HEALTH_SERVICE
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    @property
    def _complete(self) -> bool:
        """Whether every participant was heard."""
        return self._contracts.keys() == self._channels.keys()

    def call(self, attempt: Attempt, answered: Callable[[Answer], None]) -> None:
        """Send one attempt; `answered` hears what came of it, once."""
        streams = self._streams.get(self.whose(attempt.service))
        stream = streams.of(attempt) if streams else None
        if stream is not None:
            stream.call(attempt, answered)
        else:
            self._call_alone(attempt, answered)

    def _call_alone(self, attempt: Attempt, answered: Callable[[Answer], None]) -> None:
        method = self._methods.get((attempt.service, attempt.direction))
        if method is None:
            asyncio.get_running_loop().call_soon(answered, Failed(self._nobody(attempt.service)))
            return
        self._alone[self.whose(attempt.service)] += 1
        span = start_span(self._tracer, attempt)
        channel, path = method
        metadata = _metadata(attempt, traceparent_of(span, attempt))
        ended = partial(self._ended, attempt, span, answered)
        try:
            channel.call(path, attempt.request, metadata, attempt.timeout_ms, ended)
        except Exception:
            log.exception("call.broken", saga_id=attempt.saga_id, step=attempt.step)
            asyncio.get_running_loop().call_soon(answered, answers.broken(span))

    def _nobody(self, service: str) -> Failure:
        """Nobody serves it; for good only when every participant has been heard."""
        return Failure(
            kind=FailureKind.MISCONFIGURED if self._complete else FailureKind.UNKNOWN,
            code="UNIMPLEMENTED" if self._complete else "UNAVAILABLE",
            reason="PARTICIPANT_UNKNOWN",
            message=f"no participant that answers serves {service}",
        )

    def _ended(
        self, attempt: Attempt, span: Span, answered: Callable[[Answer], None], outcome: Outcome
    ) -> None:
        answer = None
        try:
            answer = self._answer(attempt, span, outcome)
        finally:  # what is raised is a bug and goes to the loop's log; the saga gets an answer
            answered(answer or answers.broken(span))

    def _answer(self, attempt: Attempt, span: Span, outcome: Outcome) -> Answer:
        if isinstance(outcome, Ending):
            return answers.stopping(span) if self._closing else _refused(attempt, outcome, span)
        return answers.done(outcome, span)

    async def close(self) -> None:
        """Cancel what is in flight, each attempt hearing so, and hang up."""
        self._closing = True
        self._contracts, self._methods, self._servers = {}, {}, {}
        await asyncio.gather(*(streams.close() for streams in self._streams.values()))
        calls = (*self._calls.values(), *self._stream_channels)
        await asyncio.gather(*(channel.close() for channel in calls))
        await asyncio.gather(*(channel.close(None) for channel in self._channels.values()))


def _channel(target: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)


def _metadata(attempt: Attempt, traceparent: str) -> list[Field]:
    metadata = [(_SAGA_ID, attempt.saga_id.encode()), (_SAGA_STEP, attempt.step.encode())]
    if attempt.not_after_ms is not None:
        metadata.append((_NOT_AFTER, b"%d" % attempt.not_after_ms))
    if traceparent:
        metadata.append((b"traceparent", traceparent.encode()))
    return metadata


def _refused(attempt: Attempt, ending: Ending, span: Span) -> Failed:
    refusal = read_refusal(ending.code, ending.message, ending.metadata)
    return answers.refused(attempt, refusal, span, proven=_REJECTED in ending.metadata)
