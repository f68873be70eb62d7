"""Commands that steer a saga; each is kept in its history with who asked and why."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from typing import Annotated

import grpc.aio
import typer
from uuid_utils import uuid7

from cli.client import TIMEOUT_SECONDS, Client, connected
from cli.output import AsJson, say
from cli.refusal import reason_of
from cli.sagas import SagaId, show_saga
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


Reason = Annotated[str, typer.Option(help="Why; kept in the saga's history.")]
Actor = Annotated[
    str,
    typer.Option(envvar="SAGA_ACTOR", default_factory=_user, help="Who asks; by default you."),
]


def cancel(
    ctx: typer.Context, saga_id: SagaId, *, reason: Reason, actor: Actor, as_json: AsJson = False
) -> None:
    """Abort a RUNNING saga: what was done is undone."""
    request = saga_pb2.CancelSagaRequest(saga_id=saga_id, reason=reason, actor=actor)
    _steer(ctx, "CancelSaga", request, as_json=as_json)


def retry(
    ctx: typer.Context, saga_id: SagaId, *, reason: Reason, actor: Actor, as_json: AsJson = False
) -> None:
    """Let a STUCK saga go on in its direction, with fresh budgets."""
    request = saga_pb2.RetrySagaRequest(saga_id=saga_id, reason=reason, actor=actor)
    _steer(ctx, "RetrySaga", request, as_json=as_json)


def skip(
    ctx: typer.Context,
    saga_id: SagaId,
    step: Annotated[str, typer.Argument(help="Name of the step that was undone by hand.")],
    *,
    reason: Reason,
    actor: Actor,
    as_json: AsJson = False,
) -> None:
    """Mark one step of a STUCK saga as undone by hand."""
    request = saga_pb2.SkipStepRequest(saga_id=saga_id, step=step, reason=reason, actor=actor)
    _steer(ctx, "SkipStep", request, as_json=as_json)


def abandon(
    ctx: typer.Context, saga_id: SagaId, *, reason: Reason, actor: Actor, as_json: AsJson = False
) -> None:
    """End a STUCK saga with the effects that are left open."""
    request = saga_pb2.AbandonSagaRequest(saga_id=saga_id, reason=reason, actor=actor)
    _steer(ctx, "AbandonSaga", request, as_json=as_json)


def _steer(ctx: typer.Context, rpc: str, request: Request, *, as_json: bool) -> None:
    request.request_id = str(uuid7())

    async def work(client: Client) -> None:
        answer = await _decided(getattr(client.sagas, rpc), request)
        await show_saga(client, answer.saga, as_json=as_json)
        if isinstance(answer, saga_pb2.AbandonSagaResponse) and not as_json:
            say(f"effects that stay: {', '.join(answer.open_steps) or 'none'}")

    connected(ctx, work)


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
