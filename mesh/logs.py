"""Structured logs: one line an event, with the saga, step and trace it belongs to."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from opentelemetry import trace

Event = MutableMapping[str, Any]

_TALKATIVE = ("alembic", "httpx")
"""Libraries that tell of every plug-in or request, which is more than `info` promises."""


def configure_logging(*, level: str, log_format: str | None, service: str) -> None:
    """Send all logs of this process to stderr, those of libraries too.

    `log_format` is json or console; None means console on a terminal and json elsewhere.
    """
    console = log_format == "console" or (log_format is None and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_id,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(service, console=console),
            ],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel("WARNING" if level == "info" else logging.NOTSET)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )


def _rendering(service: str, *, console: bool) -> list[structlog.typing.Processor]:
    """Tracebacks are printed without local variables: these hold payloads."""
    if console:
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(exception_formatter=plain)]

    def add_service(_: object, __: str, event: Event) -> Event:
        return {"service": service, **event}

    return [
        add_service,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]


def _add_trace_id(_: object, __: str, event: Event) -> Event:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
    return event
