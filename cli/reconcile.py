"""`saga reconcile`: compare the effects that participants hold with what the journal knows.

On a terminal it says how it goes and ends with a table; in a pipe it is one line, or one JSON
object, an orphan, as it is found. What was compared, and what was not, goes to stderr.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import typer
from rich.console import Console

from cli.client import Client, connected
from cli.output import AsJson, complain, say, show_rows, time_text
from cli.views import state_of
from protos.saga.v1 import saga_pb2

EXIT_ORPHANS = 1
EXIT_NOT_COMPARED = 2

COLUMNS = ("PARTICIPANT", "SAGA", "STEP", "ORPHAN", "SAGA STATE", "SINCE", "EXPLANATION")

_Answer = saga_pb2.ReconcileEffectsResponse
_Answers = AsyncIterator[_Answer]
_Summary = saga_pb2.ReconciliationSummary


def reconcile(
    ctx: typer.Context,
    *,
    participant: Annotated[
        list[str] | None, typer.Option(help="Only this participant; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find effects without a saga, and sagas without their effects; changes nothing.

    Exit code 0 when there are none, 1 when there are, 2 when not everything could be compared.
    """
    request = saga_pb2.ReconcileEffectsRequest(participants=participant or ())

    async def work(client: Client) -> None:
        answers = client.sagas.ReconcileEffects(request)
        if as_json:
            summary = await _print_json(client, answers)
        elif Console().is_terminal:
            summary = await _show_table(answers)
        else:
            summary = await _print_lines(answers)
        _end(summary)

    connected(ctx, work)


async def _print_json(client: Client, answers: _Answers) -> _Summary:
    answer = _Answer()
    async for answer in answers:
        say(client.types.to_json(answer, indent=None))
    return answer.summary


async def _print_lines(answers: _Answers) -> _Summary:
    answer = _Answer()
    async for answer in answers:
        if answer.HasField("orphan"):
            say("\t".join(_row(answer.orphan)))
    return answer.summary


async def _show_table(answers: _Answers) -> _Summary:
    answer, rows = _Answer(), list[Sequence[str]]()
    with Console(stderr=True).status("comparing") as status:
        async for answer in answers:
            if answer.HasField("orphan"):
                rows.append(_row(answer.orphan))
                status.update(f"comparing; {_orphans(len(rows))} so far")
    if rows:
        show_rows(COLUMNS, rows)
    return answer.summary


def _end(summary: _Summary) -> None:
    for why in summary.unreachable:
        complain(f"not compared: {why}")
    asked = ", ".join(summary.participants)
    complain(f"{summary.effects} effects at {asked}: {_orphans(summary.orphans)}")
    if summary.orphans:
        raise typer.Exit(EXIT_ORPHANS)
    if summary.unreachable or not summary.participants:
        raise typer.Exit(EXIT_NOT_COMPARED)


def _row(orphan: saga_pb2.Orphan) -> Sequence[str]:
    return (
        orphan.participant,
        orphan.saga_id,
        orphan.step,
        saga_pb2.OrphanKind.Name(orphan.kind).removeprefix("ORPHAN_KIND_"),
        state_of(orphan.saga_state) if orphan.saga_state else "",
        time_text(orphan.effect_time) if orphan.HasField("effect_time") else "",
        orphan.explanation,
    )


def _orphans(count: int) -> str:
    return {0: "no orphan", 1: "1 orphan"}.get(count, f"{count} orphans")
