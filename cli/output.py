"""Where a command writes: tables on a terminal, plain lines in a pipe, errors to stderr."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


def say(text: str) -> None:
    """Print a result."""
    typer.echo(text)


def complain(text: str) -> None:
    """Print what is no result, to stderr."""
    typer.echo(text, err=True)


def show_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal; in a pipe one line a row, separated by tabs."""
    console = Console()
    if console.is_terminal:
        console.print(table(columns, rows))
        return
    for row in rows:
        say("\t".join(row))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table for people."""
    result = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        result.add_row(*map(Text, row))
    return result


def time_text(time: Timestamp) -> str:
    """The time in UTC, to the millisecond, such as 2026-03-01T12:00:00.000Z."""
    moment = time.ToDatetime(tzinfo=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
