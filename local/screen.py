"""What the demo shows: a live table of each saga in a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from local.checks import Finding
from local.progress import Progress, sentence
from protos.saga.v1 import saga_pb2

_STYLES = {
    "PENDING": "dim",
    "DOING": "yellow",
    "DONE": "green",
    "COMPLETED": "bold green",
    "REJECTED": "red",
    "COMPENSATING": "magenta",
    "COMPENSATED": "cyan",
    "STUCK": "bold red",
}


class Screen:
    """Writes to one console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, line: str) -> None:
        """Write one line."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def headline(self, title: str, promise: str) -> None:
        """Begin a scenario."""
        self._console.print(f"\n[bold]{title}[/bold]\n{promise}", highlight=False)

    def findings(self, findings: Iterable[Finding]) -> None:
        """Tell what the stores said, with a tick or a cross."""
        for finding in findings:
            mark, style = ("✔", "green") if finding.holds else ("✘", "bold red")
            self._console.print(Text.assemble("  ", (mark, style), f" {finding.text}"))

    async def follow(
        self, steps: Iterable[str], events: AsyncIterator[saga_pb2.SagaEvent]
    ) -> Progress:
        """Show a saga until its last event, and return where it ended."""
        progress = Progress(steps)
        if self._console.is_terminal:
            with Live(_table(progress), console=self._console, refresh_per_second=10) as live:
                async for event in events:
                    progress.apply(event)
                    live.update(_table(progress))
        else:
            async for event in events:
                progress.apply(event)
                self.say(sentence(event))
        return progress


def _table(progress: Progress) -> Table:
    title = Text.assemble("saga ", (progress.state, _STYLES.get(progress.state, "")))
    table = Table("step", "state", "attempt", "why", box=SIMPLE_HEAD, title=title)
    table.title_justify = "left"
    table.columns[1].width = max(map(len, _STYLES))
    for name, line in progress.steps.items():
        attempt = str(line.attempt) if line.attempt else ""
        table.add_row(name, Text(line.state, _STYLES.get(line.state, "")), attempt, line.note)
    return table
