"""Reading an answer that is not OK, in tests.

async with refused() as refusal:
    await stub.GetOrder(...)
assert refusal.reason == "ORDER_NOT_FOUND"
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2


@dataclass
class Refused:
    """What the answer says, once the block has ended."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    reason: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: Sequence[str] = ()
    """Fields of its field violations."""
    retry_after_ms: int | None = None
    preconditions: Sequence[str] = ()
    """Descriptions of its precondition failures."""
    outcome: str | bytes | None = None
    """Trailing `saga-outcome`."""


@asynccontextmanager
async def refused() -> AsyncIterator[Refused]:
    """Fails unless the block ends with an answer that is not OK and has an ErrorInfo."""
    refusal = Refused()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield refusal
    error = raised.value
    refusal.code = error.code()
    refusal.message = error.details() or ""
    # The type stubs describe the error of the other, synchronous API.
    trailing = cast("grpc.aio.Metadata", error.trailing_metadata())
    refusal.outcome = trailing.get("saga-outcome")
    raw = trailing["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    _read_details(refusal, raw)


def _read_details(refusal: Refused, raw: bytes) -> None:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry, precondition = error_details_pb2.RetryInfo(), error_details_pb2.PreconditionFailure()
    for detail in status_pb2.Status.FromString(raw).details:
        if detail.Unpack(info):
            refusal.reason, refusal.domain = info.reason, info.domain
            refusal.metadata = dict(info.metadata)
        elif detail.Unpack(bad):
            refusal.fields = [violation.field for violation in bad.field_violations]
        elif detail.Unpack(retry):
            refusal.retry_after_ms = retry.retry_delay.ToMilliseconds()
        elif detail.Unpack(precondition):
            refusal.preconditions = [it.description for it in precondition.violations]
