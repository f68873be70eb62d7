"""How much is asked of a side, and what a side is: something that sagas are asked of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from google.protobuf.any_pb2 import Any as AnyMessage

from bench.build import BUILT, PROGRAM, message
from bench.world import REFUSED_STEPS, STEPS
from local.processes import Process
from protos.saga.v1 import saga_pb2

ANY_ORDER = "00000000-0000-7000-8000-000000000000"
"""Where it stands in a request, the load puts an id of each saga's own."""

_ORDER = {"order_id": ANY_ORDER, "amount": 4_200, "note": "n" * 64}


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How much is asked of a side."""

    in_flight: int
    warm_s: float = 0.7
    window_s: float = 2
    refused: bool = False
    """Whether the fourth step refuses, so that every saga is compensated."""

    @property
    def steps(self) -> Sequence[str]:
        """Full names of the step services of a saga."""
        return [f"bench.v1.{step}" for step in (REFUSED_STEPS if self.refused else STEPS)]

    @property
    def end(self) -> str:
        """The state that every saga ends in."""
        return "COMPENSATED" if self.refused else "COMPLETED"


class Side(Protocol):
    """Something that sagas are asked of; it runs."""

    @property
    def name(self) -> str:
        """What it is called in results."""

    def command(self, load: Load) -> Sequence[str]:
        """The program that asks; see `window`."""

    def processes(self) -> Mapping[str, int]:
        """Pids by name of what works then, the load apart."""

    async def finished(self) -> Mapping[str, int]:
        """How many sagas are on its disk, by state in our words; empty when it writes none down."""


def pids(*processes: Process) -> Mapping[str, int]:
    """The pids of processes by their names; those that run."""
    return {process.name: process.pid for process in processes if process.pid}


def go_load(kind: str, address: str, load: Load) -> list[str]:
    """The start of a command line of the Go load; `bench load -h` says what follows."""
    flags = [f"--kind={kind}", f"--address={address}", f"--in-flight={load.in_flight}"]
    flags += [f"--state={saga_pb2.SagaState.Value(f'SAGA_STATE_{load.end}')}"]
    return [str(PROGRAM), "load", *flags, f"--warm={load.warm_s}s", f"--for={load.window_s}s"]


def step_request() -> str:
    """The flag that gives a load what a step is asked."""
    return request_file(message("StepRequest")(**_ORDER).SerializeToString())


def start_request(load: Load) -> str:
    """The flag that gives a load a StartSagaRequest without saga_id."""
    definition = "bench-refused" if load.refused else "bench"
    request = saga_pb2.StartSagaRequest(definition=definition, input=order(ANY_ORDER), wait=True)
    return request_file(request.SerializeToString())


def order(order_id: str) -> AnyMessage:
    """The input of a saga."""
    packed = AnyMessage()
    packed.Pack(message("Order")(**{**_ORDER, "order_id": order_id}))
    return packed


def request_file(request: bytes) -> str:
    """The flag that gives a load these bytes to send."""
    path = BUILT / f"{hashlib.sha256(request).hexdigest()[:16]}.request"
    path.write_bytes(request)
    return f"--request={path}"
