"""Everything a service of the mesh says no with, and the one translation to `google.rpc.Status`.

    MeshError
    ├── InvalidRequest        INVALID_ARGUMENT      can never succeed; field violations
    ├── NotFound              NOT_FOUND             there is no such thing
    ├── AlreadyExists         ALREADY_EXISTS        the id is taken by something else
    ├── NotNow                FAILED_PRECONDITION   not legal in the present state
    ├── Rejected              FAILED_PRECONDITION   a step refuses for good
    ├── Retry                 UNAVAILABLE           try again
    ├── Overloaded            RESOURCE_EXHAUSTED    try again, later
    ├── Conflict              ABORTED               lost a race, or the key is used
    └── RecordMissing         DATA_LOSS             a record that must be there is not

A participant's handler needs two words only: `Rejected` (never again) and `Retry` (not now). Every
other exception means that the outcome is unknown, and the coordinator asks again.

Every error carries one `ErrorInfo` whose metadata holds every variable of its message. Details are
cut at 4 kB: gRPC drops trailers over 16 kB and turns the answer into another code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

MAX_DETAIL_BYTES = 4096
_MAX_TEXT_BYTES = 1024
_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One thing that is wrong with one field of a request."""

    field: str
    """Path of the field, such as items[2].quantity; empty for the whole request."""
    description: str
    """What is wrong with it and what is expected."""

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class MeshError(Exception):
    """An answer that is not OK: a code, a machine-readable reason and words."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(
        self, reason: str, message: str, *, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})

    def details(self) -> Iterable[Message]:
        """Further `google.rpc` details beside `ErrorInfo`."""
        return ()


class InvalidRequest(MeshError):
    """The request can never succeed as it is."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(
        self, violations: Iterable[FieldViolation], *, reason: str = "INVALID_REQUEST"
    ) -> None:
        self.violations = tuple(violations)
        super().__init__(reason, "; ".join(str(violation) for violation in self.violations))

    def details(self) -> Iterable[Message]:
        """One `BadRequest` with every violation."""
        yield _bad_request(self.reason, self.violations)


class NotFound(MeshError):
    """There is no such thing."""

    code = grpc.StatusCode.NOT_FOUND

    def __init__(self, reason: str, message: str, *, resource_type: str, name: str) -> None:
        super().__init__(reason, message, metadata={"resource": resource_type, "name": name})
        self._resource = error_details_pb2.ResourceInfo(
            resource_type=resource_type, resource_name=name
        )

    def details(self) -> Iterable[Message]:
        """One `ResourceInfo`."""
        yield self._resource


class AlreadyExists(MeshError):
    """The id is taken by something else."""

    code = grpc.StatusCode.ALREADY_EXISTS


class NotNow(MeshError):
    """Not legal in the present state; says which states would allow it."""

    code = grpc.StatusCode.FAILED_PRECONDITION

    def __init__(self, reason: str, message: str, *, state: str, allowed: Iterable[str]) -> None:
        names = ", ".join(allowed)
        super().__init__(reason, message, metadata={"state": state, "allowed_states": names})
        self._violation = error_details_pb2.PreconditionFailure.Violation(
            type="STATE", subject=state, description=f"allowed in: {names}"
        )

    def details(self) -> Iterable[Message]:
        """One `PreconditionFailure`."""
        yield error_details_pb2.PreconditionFailure(violations=[self._violation])


class Rejected(MeshError):
    """A step refuses for good: its effect has not happened and never will for this saga."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    stored: status_pb2.Status | None = None
    """What a barrier has stored of it: the answer from then on, byte for byte."""
    violations: tuple[FieldViolation, ...] = ()

    @classmethod
    def for_fields(cls, reason: str, violations: Iterable[FieldViolation]) -> Rejected:
        """A request whose fields make no sense, which no later try can change."""
        found = tuple(violations)
        rejected = cls(reason, "; ".join(str(violation) for violation in found))
        rejected.violations = found
        return rejected

    def details(self) -> Iterable[Message]:
        """One `BadRequest` when fields are to blame."""
        if self.violations:
            yield _bad_request(self.reason, self.violations)

    @classmethod
    def from_status(cls, stored: status_pb2.Status) -> Rejected:
        """The rejection that a barrier stored."""
        info = error_details_pb2.ErrorInfo()
        for detail in stored.details:
            if detail.Unpack(info):
                break
        rejected = cls(info.reason, stored.message, metadata=info.metadata)
        rejected.stored = stored
        return rejected


class Retry(MeshError):
    """Not now, but perhaps later; says when."""

    code = grpc.StatusCode.UNAVAILABLE

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retry_after_ms: int = 1_000,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason, message, metadata=metadata)
        self.retry_after_ms = retry_after_ms

    def details(self) -> Iterable[Message]:
        """One `RetryInfo`."""
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(self.retry_after_ms)
        yield error_details_pb2.RetryInfo(retry_delay=delay)


class Overloaded(Retry):
    """Too much at once; says when to come back."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Conflict(MeshError):
    """Lost a race, or a key was used for something else."""

    code = grpc.StatusCode.ABORTED


class RecordMissing(MeshError):
    """A record that must be there is not: somebody has to look."""

    code = grpc.StatusCode.DATA_LOSS


def _bad_request(reason: str, violations: Iterable[FieldViolation]) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field=v.field, description=v.description, reason=reason
            )
            for v in violations
        ]
    )


def to_status(error: MeshError, *, domain: str) -> status_pb2.Status:
    """The error as a `google.rpc.Status` that stays under 4 kB; what does not fit is left out.

    `domain` names the service that refuses, such as inventory.v1.
    """
    if isinstance(error, Rejected) and error.stored is not None:
        return error.stored
    status = status_pb2.Status(code=error.code.value[0], message=_cut(error.message))
    for detail in (_error_info(error, domain), *error.details()):
        packed = any_pb2.Any()
        packed.Pack(detail, deterministic=True)
        if status.ByteSize() + packed.ByteSize() < MAX_DETAIL_BYTES:
            status.details.append(packed)
    return status


def _error_info(error: MeshError, domain: str) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=domain)
    for key, value in error.metadata.items():
        info.metadata[key] = _cut(value)
        if info.ByteSize() > MAX_DETAIL_BYTES // 2:
            del info.metadata[key]
    return info


def _cut(text: str) -> str:
    return text.encode(errors="replace")[:_MAX_TEXT_BYTES].decode(errors="ignore")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a client reads from an answer that is not OK."""

    code: grpc.StatusCode
    reason: str
    """From `ErrorInfo`; empty when the answer has none."""
    message: str
    retry_after_ms: int | None
    """From `RetryInfo`; None when the answer has none."""


def read_refusal(
    code: grpc.StatusCode, message: str, trailing: Iterable[tuple[str, str | bytes]]
) -> Refusal:
    """Read an answer's trailing metadata; bytes that do not parse count as absent."""
    return _refusal(code, message, _status_details(trailing))


def refusal_of(status: status_pb2.Status) -> Refusal:
    """Read an answer that came as a status by itself; codes that do not exist are UNKNOWN."""
    return _refusal(code_of(status), status.message, status.details)


def code_of(status: status_pb2.Status) -> grpc.StatusCode:
    """The code of a status; UNKNOWN when there is no such code."""
    return _CODES.get(status.code, grpc.StatusCode.UNKNOWN)


def _refusal(code: grpc.StatusCode, message: str, details: Iterable[any_pb2.Any]) -> Refusal:
    reason, retry_after_ms = "", None
    for detail in details:
        info, delay = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if _unpacks(detail, info):
            reason = info.reason
        elif _unpacks(detail, delay):
            retry_after_ms = delay.retry_delay.ToMilliseconds()
    return Refusal(code, reason, message, retry_after_ms)


def _unpacks(detail: any_pb2.Any, into: Message) -> bool:
    try:
        return detail.Unpack(into)
    except DecodeError:
        return False


def _status_details(trailing: Iterable[tuple[str, str | bytes]]) -> Iterable[any_pb2.Any]:
    for key, value in trailing:
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status = status_pb2.Status()
            try:
                status.ParseFromString(value)
            except DecodeError:
                return ()
            return status.details
    return ()
