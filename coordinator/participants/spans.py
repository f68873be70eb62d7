"""The client span of one attempt, in the trace of its saga.

A saga whose trace is not sampled costs nothing here: its attempts get no span, and its participants
are told its trace as it is, for their logs. Without a trace context no `traceparent` is sent.
"""

from __future__ import annotations

from grpc import StatusCode
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanContext, SpanKind, Status, TraceFlags
from opentelemetry.trace import StatusCode as SpanStatus
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from coordinator.core.model import Direction
from coordinator.participants.base import Attempt

_PROPAGATOR = TraceContextTextMapPropagator()
_SAMPLED = tuple("13579bdf")
"""How a sampled traceparent ends: with the flags, whose last bit is set."""
_METHODS = {Direction.DO: "Do", Direction.COMPENSATE: "Compensate"}


def method_of(service: str, direction: Direction) -> str:
    """Full name of the RPC, such as inventory.v1.ReserveStock/Do."""
    return f"{service}/{_METHODS[direction]}"


def start_span(tracer: trace.Tracer, attempt: Attempt) -> Span:
    """Start the span of an attempt; a Compensate links to the Do that it undoes."""
    if not attempt.traceparent or not attempt.traceparent.endswith(_SAMPLED):
        return INVALID_SPAN
    parent = _PROPAGATOR.extract({"traceparent": attempt.traceparent})
    method = method_of(attempt.service, attempt.direction)
    return tracer.start_span(
        method,
        context=parent,
        kind=SpanKind.CLIENT,
        attributes={
            "rpc.system": "grpc",
            "rpc.service": attempt.service,
            "rpc.method": _METHODS[attempt.direction],
            "saga.id": attempt.saga_id,
            "saga.step": attempt.step,
            "saga.attempt": attempt.attempt,
            "saga.direction": attempt.direction.value.lower(),
        },
        links=_links(trace.get_current_span(parent).get_span_context(), attempt.link_span_id),
    )


def _links(parent: SpanContext, span_id: str) -> list[Link]:
    if not span_id or not parent.is_valid:
        return []
    undone = SpanContext(
        parent.trace_id,
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return [Link(undone)]


def traceparent_of(span: Span, attempt: Attempt) -> str:
    """W3C trace context to send with the attempt; empty when the saga has none."""
    if span is INVALID_SPAN:
        return attempt.traceparent
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
    return carrier.get("traceparent", "")


def span_id_of(span: Span) -> str:
    """Sixteen hex digits; empty when the span is not recorded."""
    return trace.format_span_id(span.get_span_context().span_id) if span.is_recording() else ""


def end_span(span: Span, code: StatusCode, reason: str = "") -> None:
    """End the span with the answer's code, and the reason when it is not OK."""
    if span.is_recording():
        span.set_attribute("rpc.grpc.status_code", code.value[0])
        if code is not StatusCode.OK:
            span.set_attribute("error.type", reason)
            span.set_status(Status(SpanStatus.ERROR, reason))
    span.end()
