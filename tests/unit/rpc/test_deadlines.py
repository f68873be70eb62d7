from __future__ import annotations

import asyncio

from mesh.rpc.deadlines import Deadlines


class Watch:
    """Deadlines, and when each key was due, in milliseconds."""

    def __init__(self) -> None:
        self.due: dict[int, int] = {}
        self.deadlines = Deadlines(self._expired)

    def _expired(self, key: int) -> None:
        assert key not in self.due
        self.due[key] = round(asyncio.get_running_loop().time() * 1_000)


async def test_each_key_is_due_after_its_own_length() -> None:
    watch = Watch()
    for key, length_ms in enumerate((300, 100, 200, 100)):
        watch.deadlines.add(key, length_ms)
    await asyncio.sleep(1)
    assert watch.due == {1: 100, 3: 100, 2: 200, 0: 300}


async def test_keys_of_one_length_are_due_in_the_order_in_which_they_came() -> None:
    watch = Watch()
    for key in range(3):
        watch.deadlines.add(key, 100)
        await asyncio.sleep(0.03)
    await asyncio.sleep(1)
    assert watch.due == {0: 100, 1: 130, 2: 160}


async def test_a_key_that_was_discarded_is_never_due_and_delays_no_other() -> None:
    watch = Watch()
    watch.deadlines.add(1, 100)
    await asyncio.sleep(0.05)
    watch.deadlines.add(2, 100)
    watch.deadlines.discard(1, 100)
    assert watch.deadlines.left_ms(2, 100) == 100
    await asyncio.sleep(1)
    assert watch.due == {2: 150}


async def test_a_key_may_be_discarded_by_one_that_is_due_with_it() -> None:
    due: list[int] = []

    def expired(key: int) -> None:
        due.append(key)
        deadlines.discard(2, 100)

    deadlines = Deadlines(expired)
    deadlines.add(1, 100)
    deadlines.add(2, 100)
    await asyncio.sleep(1)
    assert due == [1]


async def test_nothing_is_due_any_more_when_all_is_forgotten() -> None:
    watch = Watch()
    watch.deadlines.add(1, 100)
    watch.deadlines.clear()
    watch.deadlines.add(2, 200)
    await asyncio.sleep(1)
    assert watch.due == {2: 200}


async def test_a_length_is_used_again_after_a_pause() -> None:
    watch = Watch()
    watch.deadlines.add(1, 100)
    await asyncio.sleep(1)
    watch.deadlines.add(2, 100)
    await asyncio.sleep(1)
    assert watch.due == {1: 100, 2: 1_100}


async def test_when_one_raises_the_loop_hears_of_it_and_the_others_are_due_all_the_same() -> None:
    due, told = list[int](), list[object]()
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(str(context["exception"]))
    )

    def expired(key: int) -> None:
        due.append(key)
        if key == 1:
            raise RuntimeError("a bug")

    deadlines = Deadlines(expired)
    for key in (1, 2, 3):
        deadlines.add(key, 100)
    await asyncio.sleep(1)
    assert (due, told) == ([1, 2, 3], ["a bug"])
