from __future__ import annotations

import asyncio
from functools import partial

import pytest

from mesh.telling import tell_all


class Room:
    """Who was told what, by turns of the loop."""

    def __init__(self) -> None:
        self.turns: list[list[int]] = [[]]

    def hear(self, what: int) -> None:
        self.turns[-1].append(what)

    def refuse(self, what: int) -> None:
        self.hear(what)
        raise RuntimeError(f"{what} is too much")

    async def until_told(self, many: int) -> None:
        while sum(map(len, self.turns)) < many:
            self.turns.append([])
            await asyncio.sleep(0)

    @property
    def told(self) -> list[int]:
        return [what for turn in self.turns for what in turn]

    @property
    def sizes(self) -> list[int]:
        return [len(turn) for turn in self.turns if turn]


async def test_nobody_is_told_in_the_turn_in_which_the_news_come() -> None:
    room = Room()
    tell_all(asyncio.get_running_loop(), [(room.hear, 1)])
    assert room.told == []
    await room.until_told(1)
    assert room.told == [1]


@pytest.mark.parametrize(("many", "sizes"), [(32, [32]), (33, [32, 1]), (400, [50] * 8)])
async def test_all_are_told_once_and_in_order_some_in_each_turn(
    many: int, sizes: list[int]
) -> None:
    room = Room()
    tell_all(asyncio.get_running_loop(), [(room.hear, what) for what in range(many)])
    await room.until_told(many)
    assert room.told == list(range(many))
    assert room.sizes == sizes


async def test_what_is_added_before_the_first_turn_is_told() -> None:
    room = Room()
    news = [(room.hear, 1)]
    tell_all(asyncio.get_running_loop(), news)
    news.append((room.hear, 2))
    await room.until_told(2)
    assert room.told == [1, 2]


async def test_one_that_raises_keeps_nobody_from_hearing_and_the_loop_learns_of_it() -> None:
    room, loop, errors = Room(), asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: errors.append(str(context["exception"])))
    news = [(room.refuse if what in (0, 5, 39) else room.hear, what) for what in range(40)]
    tell_all(loop, news)
    await room.until_told(40)
    await asyncio.sleep(0)
    assert room.told == list(range(40))
    assert errors == ["0 is too much", "5 is too much", "39 is too much"]


async def test_between_two_turns_others_have_theirs() -> None:
    room, loop = Room(), asyncio.get_running_loop()
    tell_all(loop, [(room.hear, what) for what in range(64)])
    loop.call_soon(partial(room.hear, -1))
    await room.until_told(65)
    assert room.told.index(-1) == 32


async def test_no_news_are_no_trouble() -> None:
    tell_all(asyncio.get_running_loop(), [])
    await asyncio.sleep(0)
