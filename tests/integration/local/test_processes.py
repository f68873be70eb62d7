"""Processes are ready when started, say why when not, and never outlive us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local.processes import Process, StartFailed, is_running
from local.until import Check, until

ROOT = Path(__file__).parents[3]

# Writes its own process id and that of a child of its own, then waits.
FAMILY = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
import os; pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {child.pid}\\n")
time.sleep(60)
"""

# Starts a process as we do, then waits to be killed.
OWNER = """
import asyncio, sys
from pathlib import Path
from tests.integration.local.test_processes import sleeper
async def main():
    async with sleeper(Path(sys.argv[1])):
        await asyncio.sleep(60)
asyncio.run(main())
"""

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""


def process(folder: Path, script: str, *args: str, until: Path) -> Process:
    async def ready() -> bool:
        return is_written(until)

    return Process("child", [sys.executable, "-c", script, *args], log=folder / "log", ready=ready)


def sleeper(folder: Path) -> Process:
    return process(folder, FAMILY, str(folder / "pids"), until=folder / "pids")


def is_written(file: Path) -> bool:
    return file.exists() and file.read_text().endswith("\n")


def stopped(processes: list[psutil.Process], *, yes: bool) -> Check:
    async def check() -> bool:
        return all((each.status() == psutil.STATUS_STOPPED) is yes for each in processes)

    return check


def family(folder: Path) -> list[psutil.Process]:
    return [psutil.Process(int(pid)) for pid in (folder / "pids").read_text().split()]


async def test_a_started_process_is_ready_and_has_its_own_pid(tmp_path: Path) -> None:
    async with sleeper(tmp_path) as child:
        assert child.pid == family(tmp_path)[0].pid
    assert child.pid is None


async def test_a_process_that_ends_at_start_says_the_end_of_its_log(tmp_path: Path) -> None:
    child = process(tmp_path, "raise SystemExit('no such door')", until=tmp_path / "never")
    with pytest.raises(StartFailed, match=r"child ended at start(?s:.*)no such door"):
        await child.start()


async def test_a_process_that_never_gets_ready_is_killed(tmp_path: Path) -> None:
    child = process(tmp_path, FAMILY, str(tmp_path / "pids"), until=tmp_path / "never")
    child.start_seconds = 0.5
    with pytest.raises(StartFailed, match="child is not ready"):
        await child.start()
    assert child.pid is None


async def test_kill_takes_the_children_of_the_process_too(tmp_path: Path) -> None:
    async with sleeper(tmp_path) as child:
        processes = family(tmp_path)
        await child.kill()
        assert not any(is_running(process) for process in processes)


async def test_a_paused_process_stands_still_with_its_children_until_it_is_resumed(
    tmp_path: Path,
) -> None:
    async with sleeper(tmp_path) as child:
        processes = family(tmp_path)
        child.pause()
        assert await until(stopped(processes, yes=True), seconds=5)
        child.resume()
        assert await until(stopped(processes, yes=False), seconds=5)


async def test_a_paused_process_is_stopped_like_any_other(tmp_path: Path) -> None:
    async with sleeper(tmp_path) as child:
        running = psutil.Process(child.pid)
        child.pause()
    assert not is_running(running)


async def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    child = process(tmp_path, STUBBORN, until=tmp_path / "log")
    child.stop_seconds = 0.1
    async with child:
        running = psutil.Process(child.pid)
    assert not is_running(running)


async def test_a_killed_process_starts_again_as_it_was(tmp_path: Path) -> None:
    async with sleeper(tmp_path) as child:
        first = child.pid
        await child.kill()
        (tmp_path / "pids").unlink()
        await child.start()
        assert child.pid not in {first, None}


async def test_an_exception_inside_leaves_nothing_running(tmp_path: Path) -> None:
    children: list[psutil.Process] = []

    async def fail() -> None:
        async with sleeper(tmp_path):
            children.extend(family(tmp_path))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not is_running(children[0])


async def test_kill_minus_9_of_the_owner_leaves_nothing_running(tmp_path: Path) -> None:
    owner = process(tmp_path, OWNER, str(tmp_path), until=tmp_path / "pids")
    async with owner:
        child = family(tmp_path)[0]
        os.kill(owner.pid or 0, signal.SIGKILL)

    async def gone() -> bool:
        return not is_running(child)

    assert await until(gone, seconds=10)


def test_the_leash_refuses_to_start_once_the_parent_is_gone() -> None:
    leash = [sys.executable, "-I", "-S", str(ROOT / "local/leash.py"), "--parent", "1", "true"]
    found = subprocess.run(leash, capture_output=True, text=True, check=False)
    assert found.returncode != 0
    assert "the parent 1 is gone" in found.stderr
