"""`coordinator --workers N`: several coordinators behind one port of one machine.

Each worker is a whole coordinator, with its own lease, so that nothing is shared but the port and
the database; how sagas change hands is the same as between machines. This process only looks after
them. It starts one again that died, after pauses that grow, and drains all when it is told to end.

The port is bound here first, for this process alone, and only then opened to be shared: whoever
else wants it, a second coordinator with workers of its own too, is told that it is taken. It is
never listened on here, so the kernel gives every connection to one of the workers.

A worker that ends soon by itself with an exit code has said why it cannot run. Starting it again
would change nothing, so all of them end with it. Each holds the far end of a pipe as its standard
input: when this process is gone, even by kill -9, it ends, and they drain.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog

from coordinator.settings import Settings
from mesh.errors import MeshError

COMMAND = (sys.executable, "-m", "coordinator")
Sleep = Callable[[float], Awaitable[None]]

_SETTLED_SECONDS = 60.0
"""A worker that has lived so long could start, and is started again without much of a pause."""
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0

_log = structlog.stdlib.get_logger()


async def supervise(
    settings: Settings, *, command: Sequence[str] = COMMAND, sleep: Sleep = asyncio.sleep
) -> None:
    """Keep `settings.workers` coordinators at work until cancelled; then they drain.

    Raises:
        OSError: the port is taken.
        MeshError: `WORKER_CANNOT_START`; the worker has said why.
    """
    with _reserved(settings.grpc_host, settings.grpc_port) as port:
        async with asyncio.TaskGroup() as tasks:
            for number in range(1, settings.workers + 1):
                environment = _environment(settings, port, number)
                tasks.create_task(_keep(command, environment, sleep))


def drain_without_parent() -> None:
    """For a worker: end as by SIGTERM when the standard input does."""
    loop, pipe = asyncio.get_running_loop(), sys.stdin.fileno()

    def orphaned() -> None:
        loop.remove_reader(pipe)
        _log.warning("worker.orphaned")
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(pipe, orphaned)


@contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """Take a port, any for 0, to share it with own processes that ask to."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as reservation:
        # Connections of an earlier run do not stand against it, whoever holds the port now does.
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            reservation.bind(address)
        except OSError as taken:
            raise OSError(f"cannot listen on {host}:{port}: {taken.strerror}") from taken
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield reservation.getsockname()[1]


def _environment(settings: Settings, port: int, number: int) -> Mapping[str, str]:
    """What a worker is told, beside all that we were told."""
    console = settings.console_port and settings.console_port + number - 1
    return {
        "WORKERS": "1",
        "WORKER": "true",
        "GRPC_PORT": str(port),
        "CONSOLE_PORT": str(console),
        "INSTANCE_ID": f"{settings.instance_id}-{number}",
    }


async def _keep(command: Sequence[str], environment: Mapping[str, str], sleep: Sleep) -> None:
    """Start a worker, and again whenever it dies, until cancelled."""
    loop, pause = asyncio.get_running_loop(), _FIRST_PAUSE_SECONDS
    worker = environment["INSTANCE_ID"]
    while True:
        began = loop.time()
        exit_code = await _live(command, environment)
        settled = loop.time() - began >= _SETTLED_SECONDS
        if exit_code > 0 and not settled:
            raise MeshError("WORKER_CANNOT_START", f"worker {worker} ended with code {exit_code}")
        pause = _FIRST_PAUSE_SECONDS if settled else min(2 * pause, _LONGEST_PAUSE_SECONDS)
        _log.warning("worker.died", worker=worker, exit_code=exit_code, again_in_seconds=pause)
        await sleep(pause)


async def _live(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """One life of a worker, to its exit code, below 0 for a signal. Cancelled, it drains first."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.PIPE,
        process_group=0,  # a terminal's Ctrl-C is for us alone, who pass it on
    )
    _log.info("worker.started", worker=environment["INSTANCE_ID"], pid=process.pid)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
