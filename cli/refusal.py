"""A `google.rpc.Status` as a person reads it, and the exit code that goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import indent
from typing import cast

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_AWAY = 3
EXIT_NOT_COMPLETED = 4

_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


def exit_code(error: grpc.aio.AioRpcError) -> int:
    """What a command ends with after this answer."""
    return EXIT_AWAY if error.code() in _AWAY else EXIT_REFUSED


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason of its ErrorInfo; empty when it has none."""
    info = error_details_pb2.ErrorInfo()
    return info.reason if any(detail.Unpack(info) for detail in _status(error).details) else ""


def refusal_text(error: grpc.aio.AioRpcError) -> str:
    """The code and the reason, then what is wrong in detail, else the words of the answer."""
    heading = f"error: {error.code().name} {reason_of(error)}".rstrip()
    details = list(_details(_status(error)))
    if not any(line.startswith("- ") for line in details):
        details.insert(0, error.details() or "no words about it")
    return "\n".join([heading, *(indent(line, "  ") for line in details)])


def _details(status: status_pb2.Status) -> Iterator[str]:
    bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    precondition = error_details_pb2.PreconditionFailure()
    for detail in status.details:
        if detail.Unpack(bad):
            for violation in bad.field_violations:
                yield f"- {violation.field}: {violation.description}"
        elif detail.Unpack(precondition):
            for unmet in precondition.violations:
                yield f"it is {unmet.subject}; {unmet.description}"
        elif detail.Unpack(retry):
            yield f"try again in {retry.retry_delay.ToMilliseconds() / 1_000:g} s"


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """What the answer carries; empty when it carries nothing that can be read."""
    # grpc_status reads either kind of error; the type stubs know the synchronous one only.
    call = cast("grpc.Call", error)
    try:
        return rpc_status.from_call(call) or status_pb2.Status()
    except ValueError:
        return status_pb2.Status()
