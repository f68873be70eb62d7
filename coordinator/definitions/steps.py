"""What makes a gRPC service a step.

    service ReserveStock {
      rpc Do(ReserveStockRequest) returns (ReserveStockResponse);
      rpc Compensate(ReserveStockCompensation) returns (ReserveStockCompensated);
    }
    message ReserveStockCompensation {
      ReserveStockRequest request = 1;
      optional ReserveStockResponse response = 2;
    }

Nothing more and nothing less: the coordinator fills the compensation message by itself, for
services that it has never seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor


class NotAStep(Exception):
    """A service that is no step; says everything that it lacks."""


@dataclass(frozen=True, slots=True)
class StepTypes:
    """The messages of a step's Do."""

    request: Descriptor
    response: Descriptor


def step_types(service: ServiceDescriptor) -> StepTypes:
    """The messages of a step service.

    Raises:
        NotAStep: it is another kind of service.
    """
    if faults := list(_faults(service)):
        raise NotAStep(f"{service.full_name} is no step: {'; '.join(faults)}")
    do = service.methods_by_name["Do"]
    return StepTypes(do.input_type, do.output_type)


def _faults(service: ServiceDescriptor) -> Iterator[str]:
    names = sorted(service.methods_by_name)
    if names != ["Compensate", "Do"]:
        yield f"a step has exactly the methods Do and Compensate, this has {', '.join(names)}"
        return
    do, compensate = service.methods_by_name["Do"], service.methods_by_name["Compensate"]
    yield from (f"{m.name} streams" for m in (do, compensate) if _streams(m))
    yield from _compensation_faults(compensate.input_type, do)


def _compensation_faults(compensation: Descriptor, do: MethodDescriptor) -> Iterator[str]:
    expected = {1: ("request", do.input_type), 2: ("response", do.output_type)}
    for number, (name, message) in expected.items():
        field = compensation.fields_by_number.get(number)
        fits = field and field.name == name and field.message_type == message
        if not (field and fits and not field.is_repeated):
            yield f"{compensation.full_name} lacks the field {message.full_name} {name} = {number}"
    for field in compensation.fields:
        if field.number not in expected:
            yield f"{compensation.full_name} has a field too many: {field.name} = {field.number}"


def _streams(method: MethodDescriptor) -> bool:
    return method.client_streaming or method.server_streaming
