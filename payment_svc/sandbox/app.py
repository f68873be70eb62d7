"""The sandbox over HTTP: Stripe's paths, and its own under /_sandbox.

GET    /_sandbox/health                 ready
GET    /_sandbox/ledger[?saga_id=]      what was captured and refunded, per PaymentIntent
GET    /_sandbox/switches               latency and faults as they are now
PUT    /_sandbox/switches               sets them; what is left out goes back to its default
GET    /_sandbox/in-progress            the requests that are being answered now
POST   /_sandbox/clock {"seconds": n}   puts the clock forward: keys expire, payments settle
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from payment_svc.sandbox import forms
from payment_svc.sandbox.desk import Desk
from payment_svc.sandbox.errors import Answer, ApiError, invalid, unauthorized
from payment_svc.sandbox.objects import (
    CancelIntent,
    ConfirmIntent,
    CreateIntent,
    CreateRefund,
    Page,
    Parameters,
    RefundPage,
    RetrieveIntent,
    RetrieveRefund,
)
from payment_svc.sandbox.operations import Request
from payment_svc.sandbox.switches import Switches

_STRIPE: tuple[tuple[str, str, type[Parameters]], ...] = (
    ("POST", "/v1/payment_intents", CreateIntent),
    ("GET", "/v1/payment_intents", Page),
    ("GET", "/v1/payment_intents/{id}", RetrieveIntent),
    ("POST", "/v1/payment_intents/{id}/confirm", ConfirmIntent),
    ("POST", "/v1/payment_intents/{id}/cancel", CancelIntent),
    ("POST", "/v1/refunds", CreateRefund),
    ("GET", "/v1/refunds", RefundPage),
    ("GET", "/v1/refunds/{id}", RetrieveRefund),
)

Endpoint = Callable[[HttpRequest], Awaitable[Response]]


class Dropped(Response):
    """No answer: the server closes a connection whose promised body never comes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Promise one byte and return without it."""
        headers = [(b"content-length", b"1"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})


class PutForward(BaseModel):
    """Body of POST /_sandbox/clock."""

    seconds: int


def build(desk: Desk) -> Starlette:
    """The application."""
    stripe = [Route(path, _stripe(desk, kind), methods=[verb]) for verb, path, kind in _STRIPE]
    return Starlette(
        routes=[*stripe, *_admin(desk)],
        exception_handlers={ApiError: _refused, ValidationError: _unreadable, 404: _nowhere},
    )


def _stripe(desk: Desk, kind: type[Parameters]) -> Endpoint:
    async def endpoint(http: HttpRequest) -> Response:
        reply = await desk.serve(await _request(http, kind))
        if reply is None:
            return Dropped()
        return _json(reply.answer, {"idempotent-replayed": "true"} if reply.replayed else {})

    return endpoint


async def _request(http: HttpRequest, kind: type[Parameters]) -> Request:
    if not http.headers.get("authorization", "").startswith("Bearer sk_test_"):
        raise unauthorized()
    reads = http.method == "GET"
    encoded = http.url.query if reads else (await http.body()).decode()
    return Request(
        target=http.path_params.get("id", ""),
        parameters=forms.parse(kind, encoded),
        key=None if reads else http.headers.get("idempotency-key"),
    )


def _admin(desk: Desk) -> list[Route]:
    async def health(_: HttpRequest) -> Response:
        return JSONResponse({"state": "ready"})

    async def ledger(http: HttpRequest) -> Response:
        saga_id = http.query_params.get("saga_id")
        lines = [line for line in await desk.books() if saga_id in {None, line["saga_id"]}]
        return JSONResponse({"payments": lines})

    async def switches(http: HttpRequest) -> Response:
        if http.method == "PUT":
            desk.board.switches = Switches.model_validate_json(await http.body())
        return JSONResponse(desk.board.switches.model_dump(mode="json"))

    async def in_progress(_: HttpRequest) -> Response:
        return JSONResponse({"in_progress": desk.in_progress()})

    async def clock(http: HttpRequest) -> Response:
        forward = PutForward.model_validate_json(await http.body())
        return JSONResponse({"now": desk.put_forward(forward.seconds)})

    return [
        Route("/_sandbox/health", health),
        Route("/_sandbox/ledger", ledger),
        Route("/_sandbox/switches", switches, methods=["GET", "PUT"]),
        Route("/_sandbox/in-progress", in_progress),
        Route("/_sandbox/clock", clock, methods=["POST"]),
    ]


def _json(answer: Answer, headers: dict[str, str] | None = None) -> Response:
    told = {"request-id": f"req_{secrets.token_hex(7)}", **(headers or {})}
    return JSONResponse(answer.body, status_code=answer.http_code, headers=told)


async def _refused(_: HttpRequest, refused: Exception) -> Response:
    if not isinstance(refused, ApiError):
        raise refused
    return _json(refused.answer)


async def _unreadable(_: HttpRequest, error: Exception) -> Response:
    if not isinstance(error, ValidationError):
        raise error
    said = error.errors(include_input=False, include_url=False, include_context=False)
    return JSONResponse({"errors": said}, status_code=400)


async def _nowhere(http: HttpRequest, _: Exception) -> Response:
    url = f"({http.method}: {http.url.path})"
    return _json(invalid(f"Unrecognized request URL {url}.", code="url_invalid").answer)
