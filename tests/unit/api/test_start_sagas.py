"""StartSagas: what a stream tells, what it holds back, and how it ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias, cast

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2

from coordinator.api import start_sagas
from coordinator.core.model import FailureKind, SagaState
from coordinator.engine.ends import EndsElsewhere
from mesh.errors import InvalidRequest, MeshError, Retry, to_status
from mesh.rpc.served import Context
from protos.saga.v1 import saga_pb2 as pb
from tests.builders import definition
from tests.unit.api.desk import Desk, caller, compiled, text
from tests.unit.engine.world import World, failed

RUNNING, COMPLETED = pb.SAGA_STATE_RUNNING, pb.SAGA_STATE_COMPLETED
COMPENSATED, STUCK = pb.SAGA_STATE_COMPENSATED, pb.SAGA_STATE_STUCK


def start(
    saga_id: str = "saga-1",
    value: str = "in",
    **fields: Any,  # noqa: ANN401 - the message's fields
) -> pb.StartSagaRequest:
    given = {"definition": "story", "input": text(value), **fields}
    return pb.StartSagaRequest(saga_id=saga_id, **given)


class Client:
    """One client of StartSagas; it reads what it is told unless it is made to stop."""

    def __init__(self, desk: Desk) -> None:
        self._sent: asyncio.Queue[pb.StartSagasRequest | MeshError | None] = asyncio.Queue()
        self.told: list[pb.StartSagasResponse] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.taken = 0
        """Messages that were read from it."""
        self.stream: asyncio.Task[None] = asyncio.create_task(self._serve(desk))

    async def _serve(self, desk: Desk) -> None:
        serve = cast("Callable[..., Awaitable[None]]", desk.sagas.StartSagas)
        await serve(self._requests(), cast("Context", self))

    async def _requests(self) -> AsyncIterator[pb.StartSagasRequest]:
        while (sent := await self._sent.get()) is not None:
            if isinstance(sent, MeshError):
                raise sent
            self.taken += 1
            yield sent

    async def write(self, response: pb.StartSagasResponse) -> None:
        await self.reads.wait()
        self.told.append(response)

    def send(self, *sagas: pb.StartSagaRequest) -> None:
        self._sent.put_nowait(pb.StartSagasRequest(sagas=sagas))

    def send_garbage(self) -> None:
        """The border says it where the message is awaited."""
        self._sent.put_nowait(InvalidRequest([], reason="REQUEST_UNREADABLE"))

    def half_close(self) -> None:
        self._sent.put_nowait(None)

    @property
    def reports(self) -> list[tuple[str, int]]:
        """Every saga that was told of, with its state; 0 for a refusal."""
        return [(it.saga_id, it.state) for message in self.told for it in message.reports]

    async def hears(self, count: int) -> list[tuple[str, int]]:
        """All reports, once there are so many."""
        while len(self.reports) < count:
            await asyncio.sleep(0.001)
        assert len(self.reports) == count
        return self.reports

    async def refusal(self) -> pb.SagaReport:
        await self.hears(1)
        return self.told[0].reports[0]


Connect: TypeAlias = Callable[[Desk], Client]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens streams, which are gone when the test is over."""
    clients: list[Client] = []

    def connect(desk: Desk) -> Client:
        clients.append(Client(desk))
        return clients[-1]

    yield connect
    for client in clients:
        client.stream.cancel()
    await asyncio.gather(*(client.stream for client in clients), return_exceptions=True)


@pytest.fixture
async def client(desk: Desk, connect: Connect) -> Client:
    return connect(desk)


async def wide_desk(world: World, desk: Desk) -> Desk:
    """A coordinator with room for many sagas."""
    coordinator = await world.coordinator("wide", max_sagas=50_000)
    return Desk(world, coordinator, desk.definitions)


def reason_of(report: pb.SagaReport) -> str:
    info = error_details_pb2.ErrorInfo()
    assert report.refusal.details[0].Unpack(info)
    assert info.domain == "saga.v1"
    return info.reason


# --- starts -----------------------------------------------------------------------


async def test_a_start_is_told_once_it_is_on_disk(desk: Desk, client: Client) -> None:
    desk.coordinator.journal.hold()
    client.send(start("saga-1"), start("saga-2"))
    client.send(start("saga-3"))
    await asyncio.sleep(1)
    assert client.reports == []
    desk.coordinator.journal.let_go()
    assert await client.hears(3) == [(f"saga-{number}", RUNNING) for number in (1, 2, 3)]
    assert sorted(await desk.list_ids()) == ["saga-1", "saga-2", "saga-3"]


async def test_what_is_ready_together_is_told_together_and_meanwhile_gathers(
    desk: Desk, client: Client
) -> None:
    client.reads.clear()
    client.send(start("saga-1"))
    await desk.coordinator.sent("DO a 1")
    client.send(*(start(f"saga-{number}") for number in range(2, 40)))
    await asyncio.sleep(1)
    client.reads.set()
    await client.hears(39)
    assert [len(message.reports) for message in client.told] == [1, 38]


async def test_a_version_that_is_not_at_hand_is_asked_for(desk: Desk, client: Client) -> None:
    desk.definitions.forgetful = True
    client.send(start("saga-1"), start("saga-2"))
    assert sorted(await client.hears(2)) == [("saga-1", RUNNING), ("saga-2", RUNNING)]


async def test_a_saga_that_exists_is_told_as_it_is(desk: Desk, client: Client) -> None:
    await desk.start("saga-1")
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO b 1")
    await desk.world.until(SagaState.COMPLETED)
    await desk.start("saga-2")
    client.send(start("saga-1", wait=True), start("saga-2"))
    assert sorted(await client.hears(2)) == [("saga-1", COMPLETED), ("saga-2", RUNNING)]
    client.half_close()
    await client.stream
    assert len(client.reports) == 2


async def test_one_id_twice_in_a_stream_is_one_saga_told_twice(desk: Desk, client: Client) -> None:
    client.send(start("saga-1"), start("saga-1"), start("saga-1", "other"))
    await client.hears(3)
    assert Counter(client.reports) == {("saga-1", RUNNING): 2, ("saga-1", 0): 1}
    assert await desk.list_ids() == ["saga-1"]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (start("no id!", definition="No Name", definition_hash="12"), "INVALID_REQUEST"),
        (start("saga-9", definition="unheard-of"), "DEFINITION_NOT_FOUND"),
        (start("saga-9", definition_hash="0" * 64), "DEFINITION_NOT_FOUND"),
        (start("saga-9", input=any_pb2.Any(type_url="x/x.Y")), "INPUT_TYPE_MISMATCH"),
        (start("saga-9", "x" * 300_000), "INVALID_REQUEST"),
        (start("saga-9", definition="broken"), "REQUEST_NOT_BUILDABLE"),
        (start("saga-1", "other"), "SAGA_ID_REUSED"),
    ],
)
async def test_a_refusal_is_what_start_saga_answers(
    desk: Desk, client: Client, request_: pb.StartSagaRequest, reason: str
) -> None:
    desk.know(compiled("broken", story=definition("a", broken=frozenset({"a"}))))
    await desk.start("saga-1")
    with pytest.raises(MeshError) as refusal:
        await desk.sagas.StartSaga(request_, caller())
    client.send(request_, start("saga-2"))
    while len(client.reports) < 2:
        await asyncio.sleep(0.001)
    (refused,) = [it for message in client.told for it in message.reports if not it.state]
    assert reason_of(refused) == reason
    assert refused.saga_id == request_.saga_id
    assert refused.refusal == to_status(refusal.value, domain="saga.v1")
    assert sorted(await desk.list_ids()) == ["saga-1", "saga-2"]


async def test_a_bug_that_one_start_meets_is_its_answer_and_the_stream_goes_on(
    desk: Desk, client: Client
) -> None:
    def fail(_: bytes) -> dict[str, str]:
        raise ZeroDivisionError

    desk.know(replace(compiled("buggy"), keys_of=fail))
    client.send(start("saga-1", definition="buggy"), start("saga-2"))
    client.half_close()
    async with asyncio.timeout(10):
        await client.stream

    assert Counter(client.reports) == {("saga-1", 0): 1, ("saga-2", RUNNING): 1}


async def test_a_saga_without_an_id_is_refused(client: Client) -> None:
    client.send(start(""))
    violations = error_details_pb2.BadRequest()
    assert (await client.refusal()).refusal.details[1].Unpack(violations)
    assert [it.field for it in violations.field_violations] == ["saga_id"]


@pytest.mark.parametrize("why", ["OVERLOADED", "DRAINING", "JOURNAL_UNAVAILABLE"])
async def test_what_cannot_be_taken_now_says_when_to_ask_again(
    connect: Connect, desk: Desk, world: World, why: str
) -> None:
    if why == "OVERLOADED":
        desk = Desk(world, await world.coordinator("full", max_sagas=0), desk.definitions)
    elif why == "DRAINING":
        await desk.coordinator.engine.drain()
    else:
        desk.coordinator.journal.cut()
    client = connect(desk)
    client.send(start())
    refused, delay = await client.refusal(), error_details_pb2.RetryInfo()
    assert reason_of(refused) == why
    assert refused.refusal.details[1].Unpack(delay)
    assert delay.retry_delay.ToMilliseconds() > 0
    client.half_close()
    await client.stream


async def test_a_start_that_takes_too_long_is_told_as_not_known(desk: Desk, client: Client) -> None:
    desk.coordinator.journal.hold()
    client.send(start())
    assert reason_of(await client.refusal()) == "JOURNAL_UNAVAILABLE"
    desk.coordinator.journal.let_go()
    await desk.coordinator.sent("DO a 1")
    client.send(start())
    assert (await client.hears(2))[1] == ("saga-1", RUNNING)


# --- ends -------------------------------------------------------------------------


async def test_an_end_is_told_if_it_was_asked_for(desk: Desk, client: Client) -> None:
    client.send(start("saga-1", wait=True), start("saga-2"), start("saga-3", wait=True))
    client.half_close()
    for _ in range(2):
        await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO a 1", failed(FailureKind.REJECTED))
    for _ in range(2):
        await desk.coordinator.answer("DO b 1")
    await client.stream
    started, ended = client.reports[:3], client.reports[3:]
    assert started == [(f"saga-{number}", RUNNING) for number in (1, 2, 3)]
    assert ended == [("saga-3", COMPENSATED), ("saga-1", COMPLETED)]


async def test_stuck_is_an_end(desk: Desk, client: Client) -> None:
    client.send(start(wait=True))
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO b 1", failed(FailureKind.REJECTED))
    for attempt in (1, 2, 3):
        await desk.coordinator.answer(f"COMPENSATE a {attempt}", failed(FailureKind.REFUSED))
    assert await client.hears(2) == [("saga-1", RUNNING), ("saga-1", STUCK)]


async def test_an_end_at_another_instance_is_told(
    connect: Connect, world: World, desk: Desk
) -> None:
    other = Desk(world, await world.coordinator("two"), desk.definitions)
    engine = other.coordinator.engine
    looking = asyncio.create_task(EndsElsewhere(world.reader, engine.ends).run())
    await desk.start()
    client = connect(other)
    client.send(start(wait=True))
    client.half_close()
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO b 1")
    await client.stream
    assert client.reports == [("saga-1", RUNNING), ("saga-1", COMPLETED)]
    looking.cancel()


async def test_while_ends_are_awaited_others_are_started(
    connect: Connect, desk: Desk, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_sagas, "PLACES", 100)
    desk = await wide_desk(world, desk)
    client = connect(desk)
    for number in range(1_000):
        client.send(start(f"saga-{number}", wait=True))
    await client.hears(1_000)
    assert len(desk.coordinator.engine.ends) == 1_000


# --- what is held back ------------------------------------------------------------


async def test_a_client_that_does_not_read_starts_only_so_many(
    connect: Connect, world: World, desk: Desk
) -> None:
    desk = await wide_desk(world, desk)
    client = connect(desk)
    client.reads.clear()
    for number in range(100):
        client.send(*(start(f"saga-{number}-{one}") for one in range(100)))
    await asyncio.sleep(1)
    held = len(
        await world.reader.standings([f"saga-{n}-{o}" for n in range(100) for o in range(100)])
    )
    assert start_sagas.PLACES <= held < start_sagas.PLACES + 64
    other = connect(desk)
    other.send(start("other"))
    assert await other.hears(1) == [("other", RUNNING)]
    client.reads.set()
    await client.hears(10_000)


async def test_a_large_input_takes_more_than_one_place(
    connect: Connect, world: World, desk: Desk
) -> None:
    desk = await wide_desk(world, desk)
    client = connect(desk)
    client.reads.clear()
    for number in range(100):
        client.send(start(f"saga-{number}", "x" * 260_000))
    await asyncio.sleep(1)
    assert 60 <= client.taken <= 70


async def test_ends_that_are_awaited_are_bounded_as_well(
    connect: Connect, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_sagas, "ENDS", 2)
    client = connect(desk)
    for number in range(4):
        client.send(start(f"saga-{number}", wait=True))
    await asyncio.sleep(10)
    assert client.reports == [("saga-0", RUNNING), ("saga-1", RUNNING)]
    await desk.coordinator.answer("DO a 1", failed(FailureKind.REJECTED))
    assert await client.hears(4) == [
        ("saga-0", RUNNING),
        ("saga-1", RUNNING),
        ("saga-0", COMPENSATED),
        ("saga-2", RUNNING),
    ]


async def test_streams_that_send_too_fast_are_held_back_and_not_refused(
    connect: Connect, world: World, desk: Desk
) -> None:
    desk = await wide_desk(world, desk)
    desk.coordinator.journal.hold()
    clients = [connect(desk) for _ in range(5)]
    for number, client in enumerate(clients):
        client.send(*(start(f"saga-{number}-{one}") for one in range(1_000)))
        client.half_close()
    await asyncio.sleep(0.1)
    desk.coordinator.journal.let_go()
    await asyncio.gather(*(client.stream for client in clients))
    for client in clients:
        assert Counter(state for _, state in client.reports) == {RUNNING: 1_000}


async def test_others_have_their_turn_between_the_sagas_of_a_message(
    connect: Connect, desk: Desk, world: World
) -> None:
    desk = await wide_desk(world, desk)
    client = connect(desk)
    client.send(*(start(f"saga-{number}") for number in range(1_000)))
    most = before = 0
    while (begun := len(desk.coordinator.engine._starts)) < 1_000 and not client.told:
        most, before = max(most, begun - before), begun
        await asyncio.sleep(0)
    assert 0 < most <= 64


# --- how it ends ------------------------------------------------------------------


async def test_a_stream_that_asks_for_nothing_ends_at_once(client: Client) -> None:
    client.send()
    client.half_close()
    await client.stream
    assert client.told == []


async def test_too_many_sagas_in_one_message_end_the_stream(desk: Desk, client: Client) -> None:
    desk.coordinator.journal.hold()
    client.send(start("saga-1", wait=True))
    client.send(*(start(f"many-{number}") for number in range(1_001)))
    await asyncio.sleep(0.1)
    desk.coordinator.journal.let_go()
    with pytest.raises(InvalidRequest) as refusal:
        await client.stream
    assert [violation.field for violation in refusal.value.violations] == ["sagas"]
    assert client.reports == [("saga-1", RUNNING)]
    assert await desk.list_ids() == ["saga-1"]


async def test_garbage_ends_the_stream_after_what_was_begun_is_told(
    desk: Desk, client: Client
) -> None:
    client.send(start("saga-1", wait=True))
    client.send_garbage()
    with pytest.raises(InvalidRequest) as refusal:
        await client.stream
    assert refusal.value.reason == "REQUEST_UNREADABLE"
    assert client.reports == [("saga-1", RUNNING)]
    assert len(desk.coordinator.engine.ends) == 0


@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_drain_ends_the_stream_once_it_has_told_what_is_on_disk(
    connect: Connect, desk: Desk, client: Client, *, half_closed: bool
) -> None:
    desk.coordinator.journal.hold()
    client.send(start("saga-1", wait=True))
    if half_closed:
        client.half_close()
    await asyncio.sleep(0.1)
    desk.sagas.drain()
    client.send(start("saga-2"))
    await asyncio.sleep(0.1)
    assert not client.stream.done()
    desk.coordinator.journal.let_go()
    with pytest.raises(Retry) as refusal:
        await client.stream
    assert refusal.value.reason == "DRAINING"
    assert client.reports == [("saga-1", RUNNING)]
    assert await desk.list_ids() == ["saga-1"]
    with pytest.raises(Retry):
        await connect(desk).stream


async def test_a_client_that_goes_away_leaves_its_sagas_running(desk: Desk, client: Client) -> None:
    desk.coordinator.journal.hold()
    client.send(start("saga-1", wait=True))
    await asyncio.sleep(0.1)
    client.stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client.stream
    desk.coordinator.journal.let_go()
    await desk.coordinator.answer("DO a 1")
    assert len(desk.coordinator.engine.ends) == 0
    await desk.coordinator.answer("DO b 1")
    await desk.world.until(SagaState.COMPLETED)
    assert client.told == []
