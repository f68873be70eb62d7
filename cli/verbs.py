"""Commands that steer sagas: cancel, retry, skip, abandon; one saga, or all that a filter finds.

Each verb is kept in the history of its saga with who asked and why. `steer.py` asks it of many.
"""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

import grpc.aio
import typer
from uuid_utils import uuid7

from cli.client import TIMEOUT_SECONDS, Client, connected
from cli.output import AsJson, say
from cli.refusal import reason_of
from cli.sagas import Definition, Keys, States, key_of, show_saga, state_of
from cli.steer import steer
from protos.saga.v1 import saga_pb2

_TRIES = 10
_WAIT_SECONDS = 1.0

Request = (
    saga_pb2.CancelSagaRequest
    | saga_pb2.RetrySagaRequest
    | saga_pb2.SkipStepRequest
    | saga_pb2.AbandonSagaRequest
)
Response = (
    saga_pb2.CancelSagaResponse
    | saga_pb2.RetrySagaResponse
    | saga_pb2.SkipStepResponse
    | saga_pb2.AbandonSagaResponse
)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return "unknown"


OneSaga = Annotated[str, typer.Argument(metavar="SAGA", help="Id of the saga.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the saga's history.")]
Actor = Annotated[
    str,
    typer.Option(envvar="SAGA_ACTOR", default_factory=_user, help="Who asks; by default you."),
]
Revision = Annotated[
    int, typer.Option(min=0, help="Only if the saga still has this revision; see `saga get`.")
]
All = Annotated[bool, typer.Option("--all", help="Every saga that the conditions below find.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="With --all: only tell which sagas would be asked.")
]
Yes = Annotated[bool, typer.Option("--yes", help="With --all: do not show them and ask first.")]
StepName = Annotated[str, typer.Option(help="Name of the step that was undone by hand.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What a command was given, by the names of its arguments."""

    saga_id: str
    step: str = ""
    reason: str
    actor: str
    revision: int
    all_: bool
    definition: str
    state: list[str] | None
    key: list[str] | None
    dry_run: bool
    yes: bool
    as_json: bool

    @property
    def sagas(self) -> saga_pb2.SagaFilter:
        """What --all is restricted to."""
        return saga_pb2.SagaFilter(
            definition=self.definition,
            states=[state_of(name) for name in self.state or ()],
            keys=dict(key_of(text) for text in self.key or ()),
        )


def _command(verb: saga_pb2.SagaVerb, words: str) -> Callable[..., None]:
    def command(  # noqa: PLR0913 - typer makes an option of each argument
        ctx: typer.Context,
        saga_id: OneSaga = "",
        *,
        reason: Reason,
        actor: Actor,
        revision: Revision = 0,
        all_: All = False,
        definition: Definition = "",
        state: States = None,
        key: Keys = None,
        dry_run: DryRun = False,
        yes: Yes = False,
        as_json: AsJson = False,
    ) -> None:
        _ask(ctx, verb, _Options(**ctx.params))

    command.__doc__ = words
    return command


cancel = _command(
    saga_pb2.SAGA_VERB_CANCEL, "Abort sagas that go forward: what was done is undone."
)
retry = _command(
    saga_pb2.SAGA_VERB_RETRY, "Let STUCK sagas go on in their direction, with fresh budgets."
)
abandon = _command(
    saga_pb2.SAGA_VERB_ABANDON, "End STUCK sagas with the effects that are left open."
)


def skip(  # noqa: PLR0913 - as above
    ctx: typer.Context,
    saga_id: OneSaga = "",
    *,
    step: StepName,
    reason: Reason,
    actor: Actor,
    revision: Revision = 0,
    all_: All = False,
    definition: Definition = "",
    state: States = None,
    key: Keys = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Mark one step of STUCK sagas as undone by hand."""
    _ask(ctx, saga_pb2.SAGA_VERB_SKIP, _Options(**ctx.params))


def _ask(ctx: typer.Context, verb: saga_pb2.SagaVerb, given: _Options) -> None:
    if bool(given.saga_id) == given.all_:
        raise typer.BadParameter("name one SAGA, or say --all with conditions")
    if given.all_:
        _ask_all(ctx, verb, given)
    else:
        _ask_one(ctx, verb, given)


def _ask_all(ctx: typer.Context, verb: saga_pb2.SagaVerb, given: _Options) -> None:
    if given.revision:
        raise typer.BadParameter("--revision is for one SAGA; --all takes each as it is found")
    if given.sagas == saga_pb2.SagaFilter():
        raise typer.BadParameter("--all needs --definition, --state or --key")
    request = saga_pb2.SteerSagasRequest(
        verb=verb,
        filter=given.sagas,
        step=given.step,
        reason=given.reason,
        actor=given.actor,
        request_id=str(uuid7()),
        dry_run=given.dry_run,
    )
    steer(ctx, request, yes=given.yes, as_json=given.as_json)


def _ask_one(ctx: typer.Context, verb: saga_pb2.SagaVerb, given: _Options) -> None:
    if given.dry_run or given.yes or given.sagas != saga_pb2.SagaFilter():
        raise typer.BadParameter("--definition, --state, --key, --dry-run and --yes go with --all")
    rpc, request = _request(verb, given)
    request.saga_id, request.request_id = given.saga_id, str(uuid7())
    request.reason, request.actor = given.reason, given.actor
    request.revision = given.revision

    async def work(client: Client) -> None:
        answer = await _decided(getattr(client.sagas, rpc), request)
        await show_saga(client, answer.saga, as_json=given.as_json)
        if isinstance(answer, saga_pb2.AbandonSagaResponse) and not given.as_json:
            say(f"effects that stay: {', '.join(answer.open_steps) or 'none'}")

    connected(ctx, work)


def _request(verb: saga_pb2.SagaVerb, given: _Options) -> tuple[str, Request]:
    match verb:
        case saga_pb2.SAGA_VERB_CANCEL:
            return "CancelSaga", saga_pb2.CancelSagaRequest()
        case saga_pb2.SAGA_VERB_RETRY:
            return "RetrySaga", saga_pb2.RetrySagaRequest()
        case saga_pb2.SAGA_VERB_SKIP:
            return "SkipStep", saga_pb2.SkipStepRequest(step=given.step)
        case _:
            return "AbandonSaga", saga_pb2.AbandonSagaRequest()


async def _decided(call: Callable[..., Awaitable[Response]], request: Request) -> Response:
    """Ask again, as the same request, while the saga's owner has not decided."""
    for _ in range(_TRIES):
        try:
            return await call(request, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if reason_of(error) != "VERB_PENDING":
                raise
            await asyncio.sleep(_WAIT_SECONDS)
    return await call(request, timeout=TIMEOUT_SECONDS)
