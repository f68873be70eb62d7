"""`make up`: data that survives, errors that say what to do, and never an orphan."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from local.folder import owned
from local.ports import HOST, Ports
from local.processes import Process, is_running
from local.scenarios import VISA
from local.shop import Shop, open_shop
from local.until import until
from protos.order.v1 import order_pb2

ROOT = Path(__file__).parents[2]


def environment(ports: Ports) -> dict[str, str]:
    return {**os.environ, **{f"{name.upper()}_PORT": str(port) for name, port in ports}}


def up(folder: Path, ports: Ports, *, coordinators: int = 1) -> Process:
    """`make up`, without make."""
    log = folder / "up.log"

    async def ready() -> bool:
        return "Ctrl-C stops everything" in log.read_text()

    command = [sys.executable, "-m", "local", "up", "--data", str(folder / "data")]
    command += ["--coordinators", str(coordinators)]
    return Process("up", command, log=log, ready=ready, env=environment(ports))


@asynccontextmanager
async def customer(ports: Ports) -> AsyncIterator[Shop]:
    async with open_shop(lambda name: f"{HOST}:{getattr(ports, name)}") as shop:
        yield shop


def family(process: Process) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    assert len(found) >= 8  # PostgreSQL, MongoDB, the sandbox and five services
    return found


async def gone(processes: list[psutil.Process]) -> bool:
    async def check() -> bool:
        return not any(is_running(process) for process in processes)

    return await until(check, seconds=15)


async def test_data_survives_kill_minus_9_and_nothing_is_left_running(
    new_folder: Callable[[], Path],
) -> None:
    folder, ports = new_folder(), Ports.free()
    async with up(folder, ports, coordinators=2) as running:
        assert "coordinator-2" in running.log.read_text()
        async with customer(ports) as shop:
            placed = await shop.place({"coffee": 1}, VISA)
            async for _ in shop.watch(placed.saga_id):
                pass
        children = family(running)
        os.kill(psutil.Process(running.pid).pid, signal.SIGKILL)
        assert await gone(children)
    (folder / "up.log").unlink()
    async with up(folder, ports) as running:
        async with customer(ports) as shop:
            order = await shop.order(placed.order_id)
            assert order.state == order_pb2.ORDER_STATE_CONFIRMED
        children = family(running)
    assert await gone(children)
    assert "Stopping" in (folder / "up.log").read_text()


def run_up(folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local", "up", "--data", str(folder)]
    return subprocess.run(
        command, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_second_mesh_on_the_folder_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    with owned(tmp_path):
        said = run_up(tmp_path, environment(Ports.free()))
    assert said.returncode == 1
    assert f"is in use by process {os.getpid()}: stop it first" in said.stderr


def test_a_taken_port_is_named_with_the_variable_that_moves_us(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        ports = Ports.free().model_copy(update={"order": port})
        said = run_up(tmp_path, environment(ports))
    assert said.returncode == 1
    assert f"port {port} for order is in use" in said.stderr
    assert "ORDER_PORT" in said.stderr
