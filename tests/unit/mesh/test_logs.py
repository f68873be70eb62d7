from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog
from opentelemetry import trace
from structlog.contextvars import bound_contextvars

from mesh.logs import configure_logging

Start = Callable[..., io.StringIO]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Configures logging and returns what is written to stderr; undone afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)

    def start(*, level: str = "info", log_format: str | None = None) -> io.StringIO:
        stderr = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stderr)
        configure_logging(level=level, log_format=log_format, service="order")
        return stderr

    yield start
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def test_a_line_is_json_with_its_saga_and_trace(start: Start) -> None:
    stderr = start()
    context = trace.SpanContext(
        trace_id=0xABC, span_id=0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1)
    )
    with (
        bound_contextvars(saga_id="saga-1", step="create_order"),
        trace.use_span(trace.NonRecordingSpan(context)),
    ):
        structlog.stdlib.get_logger().info("order.created", items=3)

    line = json.loads(stderr.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "service": "order",
        "event": "order.created",
        "level": "info",
        "items": 3,
        "saga_id": "saga-1",
        "step": "create_order",
        "trace_id": "00000000000000000000000000000abc",
    }


def test_libraries_log_the_same_way(start: Start) -> None:
    stderr = start()
    with bound_contextvars(saga_id="saga-1"):
        logging.getLogger("sqlalchemy").warning("pool is %s", "full")

    line = json.loads(stderr.getvalue())
    assert (line["event"], line["level"], line["saga_id"]) == ("pool is full", "warning", "saga-1")


def test_what_is_below_the_level_is_not_written(start: Start) -> None:
    stderr = start(level="warning")
    structlog.stdlib.get_logger().info("order.created")
    logging.getLogger("sqlalchemy").info("connected")

    assert stderr.getvalue() == ""


@pytest.mark.parametrize("library", ["httpx", "alembic.runtime.plugins"])
@pytest.mark.parametrize(("level", "told"), [("info", False), ("debug", True)])
def test_a_library_tells_of_all_that_it_does_only_when_debugging(
    start: Start, library: str, level: str, *, told: bool
) -> None:
    stderr = start(level=level)
    logging.getLogger(library).info("HTTP Request: POST http://provider/v1/refunds")

    assert ("HTTP Request" in stderr.getvalue()) is told


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_is_written_without_local_variables(start: Start, log_format: str) -> None:
    stderr = start(log_format=log_format)
    try:
        charge("4242" * 4)
    except ZeroDivisionError:
        structlog.stdlib.get_logger().exception("charge.failed")

    written = stderr.getvalue()
    assert "ZeroDivisionError" in written
    assert "in charge" in written
    assert "4242424242424242" not in written


def charge(card: str) -> float:
    return len(card) / 0


def test_the_console_is_for_people(start: Start) -> None:
    stderr = start(log_format="console")
    structlog.stdlib.get_logger().info("order.created", items=3)

    assert "order.created" in stderr.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(stderr.getvalue())
