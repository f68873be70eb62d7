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

from aiohttp import web
from pydantic import BaseModel, ValidationError

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

Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PutForward(BaseModel):
    """Body of POST /_sandbox/clock."""

    seconds: int


def build(desk: Desk) -> web.Application:
    """The application."""
    app = web.Application(middlewares=[_refusing])
    app.add_routes([web.route(verb, path, _stripe(desk, kind)) for verb, path, kind in _STRIPE])
    app.add_routes(_admin(desk))
    return app


def _stripe(desk: Desk, kind: type[Parameters]) -> Endpoint:
    async def endpoint(http: web.Request) -> web.StreamResponse:
        reply = await desk.serve(await _request(http, kind))
        if reply is None:
            return await _dropped(http)
        return _json(reply.answer, {"idempotent-replayed": "true"} if reply.replayed else {})

    return endpoint


async def _request(http: web.Request, kind: type[Parameters]) -> Request:
    if not http.headers.get("authorization", "").startswith("Bearer sk_test_"):
        raise unauthorized()
    reads = http.method == "GET"
    encoded = http.rel_url.raw_query_string if reads else await http.text()
    return Request(
        target=http.match_info.get("id", ""),
        parameters=forms.parse(kind, encoded),
        key=None if reads else http.headers.get("idempotency-key"),
    )


async def _dropped(http: web.Request) -> web.StreamResponse:
    """No answer: one byte is promised, and the connection is closed without it."""
    nothing = web.StreamResponse()
    nothing.content_length = 1
    nothing.force_close()
    await nothing.prepare(http)
    if http.transport is not None:
        http.transport.close()
    return nothing


def _admin(desk: Desk) -> list[web.RouteDef]:
    async def health(_: web.Request) -> web.Response:
        return web.json_response({"state": "ready"})

    async def ledger(http: web.Request) -> web.Response:
        saga_id = http.query.get("saga_id")
        lines = [line for line in desk.books() if saga_id in {None, line["saga_id"]}]
        return web.json_response({"payments": lines})

    async def switches(http: web.Request) -> web.Response:
        if http.method == "PUT":
            desk.board.switches = Switches.model_validate_json(await http.read())
        return web.json_response(desk.board.switches.model_dump(mode="json"))

    async def in_progress(_: web.Request) -> web.Response:
        return web.json_response({"in_progress": desk.in_progress()})

    async def clock(http: web.Request) -> web.Response:
        forward = PutForward.model_validate_json(await http.read())
        return web.json_response({"now": desk.put_forward(forward.seconds)})

    return [
        web.get("/_sandbox/health", health),
        web.get("/_sandbox/ledger", ledger),
        web.get("/_sandbox/switches", switches),
        web.put("/_sandbox/switches", switches),
        web.get("/_sandbox/in-progress", in_progress),
        web.post("/_sandbox/clock", clock),
    ]


def _json(answer: Answer, headers: dict[str, str] | None = None) -> web.Response:
    told = {"request-id": f"req_{secrets.token_hex(7)}", **(headers or {})}
    return web.json_response(answer.body, status=answer.http_code, headers=told)


@web.middleware
async def _refusing(request: web.Request, handler: Endpoint) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as refused:
        return _json(refused.answer)
    except ValidationError as error:
        said = error.errors(include_input=False, include_url=False, include_context=False)
        return web.json_response({"errors": said}, status=400)
    except web.HTTPNotFound:
        url = f"({request.method}: {request.path})"
        return _json(invalid(f"Unrecognized request URL {url}.", code="url_invalid").answer)
