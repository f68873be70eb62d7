"""Shows a run while it goes on: a live line in a terminal, a line every few seconds in a pipe."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tests.chaos.run import Chaos

_TERMINAL_SECONDS, _PIPE_SECONDS = 0.5, 10.0


class Screen:
    """Writes to one console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False)

    async def watch(self, chaos: Chaos) -> None:
        """Show this run until cancelled."""
        terminal = self._console.is_terminal
        while True:
            await asyncio.sleep(_TERMINAL_SECONDS if terminal else _PIPE_SECONDS)
            if terminal:
                self._live.update(Text(_line(chaos)), refresh=True)
            else:
                self._console.print(_line(chaos), markup=False)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()


def _line(chaos: Chaos) -> str:
    codes = Counter(call.code for call in chaos.customers.calls)
    said = ", ".join(f"{code} {count}" for code, count in codes.most_common())
    under = ", ".join(f"{fault.kind} {fault.target}" for fault in chaos.under)
    return f"{chaos.now():5.0f} s  answers: {said}  now: {under or 'peace'}"
