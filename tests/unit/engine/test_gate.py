"""One gate by itself: who passes, who waits, who goes first."""

from __future__ import annotations

import asyncio
from functools import partial

from coordinator.core.model import Direction, Failure, FailureKind
from coordinator.engine.clock import LoopClock
from coordinator.engine.gate import FIRST_WINDOW, Gate
from coordinator.participants.base import Answer, Done, Failed

DO, UNDO = Direction.DO, Direction.COMPENSATE
OK = Done(b"")


def unclear(code: str) -> Failed:
    return Failed(Failure(kind=FailureKind.UNKNOWN, code=code, reason="TOLD"))


AWAY = unclear("UNAVAILABLE")


class Door:
    """A gate whose calls a test makes and answers."""

    def __init__(self, limit: int = 512) -> None:
        clock = LoopClock(asyncio.get_running_loop())
        self.doubts: list[Gate] = []
        self.gate = Gate("payment", limit=limit, clock=clock, doubted=self.doubts.append)
        self.sent: list[Direction] = []

    def call(self, direction: Direction) -> None:
        if self.gate.enter(direction):
            self.sent.append(direction)
        else:
            self.gate.wait(direction, lambda: self.call(direction))

    def answer(self, answer: Answer = OK) -> None:
        self.gate.answered(self.sent.pop(0), answer)


async def test_few_calls_pass_at_first_and_each_answer_lets_two_more_pass() -> None:
    door = Door()
    for _ in range(100):
        door.call(UNDO)
    assert len(door.sent) == FIRST_WINDOW
    for _ in range(FIRST_WINDOW):
        door.answer()
    assert len(door.sent) == 2 * FIRST_WINDOW


async def test_the_window_never_grows_above_the_limit() -> None:
    door = Door(limit=20)
    for _ in range(1_000):
        door.call(UNDO)
    while door.sent:
        assert len(door.sent) <= 20
        door.answer()
    assert door.gate.condition.waiting == 0


async def test_a_window_that_is_not_used_does_not_grow() -> None:
    door = Door()
    for _ in range(1_000):
        door.call(DO)
        door.answer()
    for _ in range(100):
        door.call(UNDO)
    assert len(door.sent) == FIRST_WINDOW


async def test_a_share_of_the_window_is_for_compensations_alone() -> None:
    door = Door(limit=FIRST_WINDOW)
    for _ in range(FIRST_WINDOW):
        door.call(DO)
    assert len(door.sent) == 6
    door.call(UNDO)
    door.call(UNDO)
    assert door.sent.count(UNDO) == 2


async def test_compensations_that_wait_go_before_every_do_that_waits() -> None:
    door = Door(limit=FIRST_WINDOW)
    for _ in range(FIRST_WINDOW):
        door.call(UNDO)
    door.call(DO)
    door.call(UNDO)
    door.answer()
    assert door.sent[-1] is UNDO
    door.answer()
    assert door.sent[-1] is DO


async def test_who_came_first_goes_first() -> None:
    door, gone = Door(limit=1), list[int]()
    door.call(UNDO)
    for number in range(3):
        door.gate.wait(DO, partial(gone.append, number))
    door.answer()
    assert gone == [0, 1, 2]


async def test_a_call_that_is_called_off_does_not_go() -> None:
    door, gone = Door(limit=1), list[int]()
    door.call(UNDO)
    waiting = door.gate.wait(DO, lambda: gone.append(1))
    waiting.cancel()
    waiting.cancel()
    assert door.gate.condition.waiting == 0
    door.answer()
    assert gone == []


async def test_one_trouble_halves_the_window_once_however_many_calls_fail_of_it() -> None:
    door = Door(limit=64)
    for _ in range(1_000):
        door.call(UNDO)
    while len(door.sent) < 64:
        door.answer()
    for _ in range(20):
        door.answer(AWAY)
    assert len(door.sent) == 44
    for _ in range(12):
        door.answer()
    assert len(door.sent) >= 32


async def test_the_window_stays_large_enough_to_go_on() -> None:
    door = Door()
    for _ in range(1_000):
        door.call(UNDO)
    for _ in range(900):
        door.answer(AWAY)
    assert len(door.sent) == FIRST_WINDOW


async def test_a_participant_that_says_that_it_is_away_is_doubted() -> None:
    for code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        door = Door()
        door.call(DO)
        door.answer(unclear(code))
        assert door.doubts == [door.gate]


async def test_unclear_answers_are_a_doubt_only_when_nothing_else_comes() -> None:
    door = Door()
    for number in range(12):
        door.call(DO)
        door.answer(OK if number % 4 == 3 else unclear("INTERNAL"))
    assert door.doubts == []
    for _ in range(5):
        door.call(DO)
        door.answer(unclear("INTERNAL"))
    assert door.doubts == [door.gate]


async def test_a_refusal_says_that_somebody_is_there() -> None:
    door = Door()
    for kind in (FailureKind.REJECTED, FailureKind.REFUSED, FailureKind.MISCONFIGURED):
        for _ in range(10):
            door.call(DO)
            door.answer(Failed(Failure(kind=kind, code="UNAVAILABLE", reason="TOLD")))
    assert door.doubts == []


async def test_the_wait_is_that_of_the_oldest_do_and_begins_when_the_circuit_closes() -> None:
    door = Door(limit=1)
    assert door.gate.wait_ms == 0
    door.gate.open_circuit()
    door.call(DO)
    door.call(DO)
    await asyncio.sleep(60)
    assert door.gate.wait_ms == 0
    door.gate.close_circuit()
    await asyncio.sleep(2)
    assert door.gate.wait_ms == 2_000
    door.answer()
    assert door.gate.wait_ms == 0


async def test_silence_while_others_wait_is_a_doubt() -> None:
    door = Door()
    await asyncio.sleep(60)  # it has had nothing to say
    for _ in range(FIRST_WINDOW + 1):
        door.call(UNDO)
    assert not door.doubts
    await asyncio.sleep(1.9)
    door.answer()
    await asyncio.sleep(1.9)
    door.call(UNDO)
    assert not door.doubts
    await asyncio.sleep(0.2)
    door.call(UNDO)
    assert door.doubts == [door.gate]
    assert door.gate.suspicion is not None
    assert door.gate.suspicion.reason == "PARTICIPANT_SILENT"
