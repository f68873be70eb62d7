"""Child processes that are ready when `start` returns and never outlive us.

Three nets against orphans. `async with` stops the child on every normal way out, an exception and
Ctrl-C included: each child has a session of its own, so that a terminal's Ctrl-C reaches only us
and we can stop the children in order. The leash (leash.py) lets the kernel kill it when we die
without a word. And `kill` and `stop` take the child's own children with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from local.until import Check, until

_LEASH = Path(__file__).with_name("leash.py")
_LOG_TAIL_LINES = 20


class StartFailed(Exception):
    """A process ended, or did not get ready in time; says the last lines of its log."""


class Process:
    """A command with a log file and a way to tell that it is ready.

    Args:
        name: what people call it.
        command: the program and its arguments.
        log: file its output is appended to.
        ready: asked again and again until it answers True.
        env: its whole environment; ours when None.
        user: the system user to run as; ours when None.
    """

    stop_signal = signal.SIGTERM
    start_seconds = 60.0
    stop_seconds = 15.0

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        ready: Check,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [sys.executable, "-I", "-S", str(_LEASH)]
        self._command += ["--user", user, *command] if user else command
        self._ready = ready
        self._env = env
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._child.pid if self._child and self._child.poll() is None else None

    async def start(self) -> None:
        """Start it and return once it is ready.

        Raises:
            StartFailed: it ended, or was not ready in time; it does not run then.
        """
        self._child = self._spawn()
        try:
            await self._until_ready()
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """Ask it to end, go on if it is paused, and wait; kill it when it takes too long."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.send_signal(self.stop_signal)
        self.resume()
        try:
            await asyncio.to_thread(self._child.wait, self.stop_seconds)
        except subprocess.TimeoutExpired:
            await self.kill()

    async def kill(self) -> None:
        """Kill it and its children with SIGKILL and wait until they are gone."""
        if self._child is None or self._child.poll() is not None:
            return
        child = psutil.Process(self._child.pid)
        child.suspend()  # no more children while they are counted
        family = _family(child)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await asyncio.to_thread(self._child.wait)
        await until(_gone(family), seconds=self.stop_seconds)

    def pause(self) -> None:
        """Hold it and its children where they are (SIGSTOP); nothing when it does not run."""
        if (pid := self.pid) is not None:
            child = psutil.Process(pid)
            child.suspend()  # no more children while they are counted
            for process in _family(child):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()

    def resume(self) -> None:
        """Let it and its children go on (SIGCONT); nothing when it does not run."""
        if (pid := self.pid) is not None:
            for process in reversed(_family(psutil.Process(pid))):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    async def is_ready(self) -> bool:
        """Whether it runs and says that it is ready."""
        return self.pid is not None and await self._ready()

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - no shell, and the command is our own
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def _until_ready(self) -> None:
        async def ready_or_ended() -> bool:
            return self.pid is None or await self._ready()

        in_time = await until(ready_or_ended, seconds=self.start_seconds)
        if self.pid is None or not in_time:
            what = "is not ready" if self.pid else "ended at start"
            raise StartFailed(f"{self.name} {what}; the end of {self.log}:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()


def _family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all its descendants, itself first."""
    return [process, *process.children(recursive=True)]


def _gone(processes: Sequence[psutil.Process]) -> Check:
    async def gone() -> bool:
        return not any(is_running(process) for process in processes)

    return gone


def is_running(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie only waits for the init process to collect it."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
