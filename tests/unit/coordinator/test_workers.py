"""What looks after workers, with small programs in their place."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.settings import Settings
from coordinator.workers import supervise
from local.until import until
from mesh.errors import MeshError

TELL = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def tell(what):
    with (folder / os.environ["INSTANCE_ID"]).open("a") as file:
        file.write(what + "\\n")
"""
LAST = TELL + "tell(json.dumps(dict(os.environ)))\nwhile True: time.sleep(60)\n"
DRAIN = TELL + (
    "def drain(*_):\n    tell('drained')\n    sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, drain)\ntell('up')\nwhile True: time.sleep(60)\n"
)
DIE = TELL + "tell(str(os.getpid()))\nos.kill(os.getpid(), signal.SIGKILL)\n"
FAIL = DRAIN.replace(
    "tell('up')",
    "if os.environ['INSTANCE_ID'] == 'shop-2':\n"
    "    while not (folder / 'shop-1').exists(): time.sleep(0.01)\n"
    "    sys.exit(2)\n"
    "tell('up')",
)


def settings(workers: int = 2, port: int = 0) -> Settings:
    return Settings(
        postgres_dsn="postgresql://u:secret@h/db",
        participants="order:50052",
        grpc_host="127.0.0.1",
        grpc_port=port,
        instance_id="shop",
        workers=workers,
    )


def command(program: str, folder: Path) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", program, str(folder))


async def told(folder: Path, worker: str, lines: int = 1) -> list[str]:
    """The first lines that a worker has told."""
    file = folder / worker

    async def enough() -> bool:
        return file.exists() and file.read_text().count("\n") >= lines

    assert await until(enough, seconds=10)
    return file.read_text().splitlines()


async def end(supervising: asyncio.Task[None]) -> None:
    supervising.cancel()
    await asyncio.wait({supervising})
    assert supervising.cancelled()


async def test_each_worker_has_its_own_name_and_console_and_all_have_one_port(
    tmp_path: Path,
) -> None:
    supervising = asyncio.create_task(supervise(settings(), command=command(LAST, tmp_path)))
    first, second = [json.loads((await told(tmp_path, f"shop-{n}"))[0]) for n in (1, 2)]
    assert (first["CONSOLE_PORT"], second["CONSOLE_PORT"]) == ("8080", "8081")
    assert first["GRPC_PORT"] == second["GRPC_PORT"] != "0"
    assert (first["WORKERS"], first["WORKER"]) == ("1", "true")
    await end(supervising)


async def test_to_be_told_to_end_is_to_tell_the_workers_and_wait(tmp_path: Path) -> None:
    supervising = asyncio.create_task(supervise(settings(), command=command(DRAIN, tmp_path)))
    for worker in ("shop-1", "shop-2"):
        await told(tmp_path, worker)
    await end(supervising)
    for worker in ("shop-1", "shop-2"):
        assert (tmp_path / worker).read_text() == "up\ndrained\n"


async def test_a_worker_that_dies_is_started_again_after_pauses_that_grow(tmp_path: Path) -> None:
    pauses: asyncio.Queue[float] = asyncio.Queue()
    supervising = asyncio.create_task(
        supervise(settings(1), command=command(DIE, tmp_path), sleep=pauses.put)
    )
    assert [await pauses.get() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    await end(supervising)
    pids = (tmp_path / "shop-1").read_text().split()
    assert len(set(pids)) >= 7


async def test_a_worker_that_cannot_start_ends_all(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as failed:
        await supervise(settings(), command=command(FAIL, tmp_path))
    (error,) = failed.value.exceptions
    assert isinstance(error, MeshError)
    assert error.reason == "WORKER_CANNOT_START"
    assert "shop-2 ended with code 2" in str(error)
    assert (tmp_path / "shop-1").read_text() == "up\ndrained\n"


async def test_a_port_with_workers_is_taken_for_everybody_else(tmp_path: Path) -> None:
    supervising = asyncio.create_task(supervise(settings(), command=command(LAST, tmp_path)))
    port = int(json.loads((await told(tmp_path, "shop-1"))[0])["GRPC_PORT"])
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
        await supervise(settings(port=port), command=command(LAST, tmp_path))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
    with socket.socket() as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        own.bind(("127.0.0.1", port))
    await end(supervising)


def test_a_worker_without_its_parent_drains() -> None:
    waits = (
        "import asyncio\nfrom coordinator.workers import drain_without_parent\n"
        "async def main():\n    drain_without_parent()\n    print('up', flush=True)\n"
        "    await asyncio.sleep(60)\nasyncio.run(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", waits],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"up\n"
        worker.stdin.close()
        assert worker.wait(10) == -signal.SIGTERM
