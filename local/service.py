"""A Python service of this repository as a process, and how it says that it is ready."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
import grpc.aio
import httpx

from local.ports import HOST
from local.processes import Process
from local.until import Check
from mesh.serving import is_serving
from protos.saga.v1 import saga_pb2, saga_pb2_grpc

_ROOT = str(Path(__file__).parents[1])


def service(
    name: str, module: str, *, folder: Path, ready: Check, env: Mapping[str, str]
) -> Process:
    """`python -m module` with its log in `folder`/name.log; `env` is added to our environment."""
    return Process(
        name,
        [sys.executable, "-m", module],
        log=folder / f"{name}.log",
        ready=ready,
        env={**os.environ, "PYTHONPATH": _python_path(), **env},
    )


def _python_path() -> str:
    return os.pathsep.join([_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])


def serves_grpc(port: int) -> Check:
    """Whether the gRPC server there says that it is SERVING."""

    async def ready() -> bool:
        return await asyncio.to_thread(is_serving, f"{HOST}:{port}")

    return ready


def runs_sagas(port: int, definition: str) -> Check:
    """Whether the coordinator there is ready and has this definition to run."""
    serving = serves_grpc(port)

    async def ready() -> bool:
        if not await serving():
            return False
        async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
            stub = saga_pb2_grpc.DefinitionServiceStub(channel)
            try:
                await stub.GetDefinition(saga_pb2.GetDefinitionRequest(name=definition))
            except grpc.aio.AioRpcError:
                return False
        return True

    return ready


def serves_http(url: str) -> Check:
    """Whether a GET there is answered with success."""

    async def ready() -> bool:
        async with httpx.AsyncClient() as client:
            try:
                return (await client.get(url)).is_success
            except httpx.TransportError:
                return False

    return ready
