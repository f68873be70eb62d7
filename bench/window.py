"""One window: a load runs against a side, and what it and the processes took meanwhile.

A load is a program that keeps sagas in flight and tells us of it on its standard output (see
go/load.go): it warms up, prints `begin`, later `end`, lets what is in flight end, and prints a
report as JSON. CPU time is read at `begin` and at `end`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence

import msgspec
import psutil


class LoadFailed(Exception):
    """Sagas did not do what they were meant to; says what they did."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a load says at its end; `count` within the window, `finished` at any time."""

    seconds: float
    count: int
    per_second: float
    p50_ms: float
    p99_ms: float
    finished: int
    wrong: int
    cpu_s: float
    """CPU time of the load itself within the window."""
    example: str = ""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one window."""

    report: Report
    cpu_us: Mapping[str, float]
    """CPU time of each process, its children included, for one saga of the window."""
    foreign_cores: float
    """How many cores others kept busy: above 0.25 the figures of the window are doubtful."""


async def measure(command: Sequence[str], processes: Callable[[], Mapping[str, int]]) -> Window:
    """Run a load; `processes` are the pids by names of what it makes work.

    Raises:
        LoadFailed: it ended badly, or sagas did.
    """
    load = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        pids = processes()
        await _line(load, "begin")
        before = _Cpu.now(pids)
        await _line(load, "end")
        spent = _Cpu.now(pids).since(before)
        report = await _report(load)
    finally:
        if load.returncode is None:
            load.kill()
        await load.wait()
    own = {**spent.own, "load": report.cpu_s}
    return Window(
        report=report,
        cpu_us={name: seconds * 1e6 / max(report.count, 1) for name, seconds in own.items()},
        foreign_cores=max(0, spent.machine - sum(own.values())) / report.seconds,
    )


async def _line(load: asyncio.subprocess.Process, expected: str) -> None:
    said = await _read(load)
    if said != expected:
        raise LoadFailed(f"{expected!r} was expected of the load, it said {said!r}")


async def _report(load: asyncio.subprocess.Process) -> Report:
    report = msgspec.convert(json.loads(await _read(load)), Report)
    if await load.wait() or report.wrong:
        raise LoadFailed(f"{report.wrong} sagas went wrong, such as: {report.example}")
    return report


async def _read(load: asyncio.subprocess.Process) -> str:
    if load.stdout is None:
        raise LoadFailed("the load has no output")
    line = await load.stdout.readline()
    if not line:
        raise LoadFailed(f"the load ended with exit code {await load.wait()}")
    return line.decode().strip()


class _Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of CPU time spent so far, by each process and by the whole machine."""

    own: dict[str, float]
    machine: float

    @classmethod
    def now(cls, pids: Mapping[str, int]) -> _Cpu:
        times = psutil.cpu_times()
        busy = sum(times) - times.idle - times.iowait - times.guest - times.guest_nice
        return cls(own={name: _seconds(pid) for name, pid in pids.items()}, machine=busy)

    def since(self, before: _Cpu) -> _Cpu:
        own = {name: seconds - before.own[name] for name, seconds in self.own.items()}
        return _Cpu(own=own, machine=self.machine - before.machine)


def _seconds(pid: int) -> float:
    root = psutil.Process(pid)
    return _spent(root) + sum(map(_spent_if_there, root.children(recursive=True)))


def _spent_if_there(process: psutil.Process) -> float:
    """Of a child that may have ended since it was found, as PostgreSQL's vacuum does."""
    try:
        return _spent(process)
    except psutil.NoSuchProcess:
        return 0.0


def _spent(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])
