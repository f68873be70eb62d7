"""What figures were taken on: the machine, and the versions of what matters."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

import psutil
import psycopg

_PACKAGES = ("ngh2", "grpcio", "protobuf", "psycopg", "msgspec")
_SYNCS = 200


def describe_machine(folder: Path) -> dict[str, str | int | float]:
    """Processor, memory, and how long its disk takes to sync a page in `folder`."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "sync_us": round(_sync_us(folder)),
    }


async def describe_versions(dsn: str) -> dict[str, str]:
    """Versions of the languages, libraries and the server."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        server = connection.info.server_version
    return {
        "revision": _first_line("git", "describe", "--always", "--dirty"),
        "python": platform.python_version(),
        "postgresql": f"{server // 10_000}.{server % 10_000}",
        "go": _first_line("go", "env", "GOVERSION"),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _sync_us(folder: Path) -> float:
    took = []
    with (folder / "synced").open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(b"\0" * 8192)
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e6


def _first_line(*command: str) -> str:
    here = Path(__file__).parent
    told = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)  # noqa: S603
    return told.stdout.partition("\n")[0] or "unknown"
