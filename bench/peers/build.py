"""Builds the peers into build/peers: two Go modules as they are, and a venv for those in Python."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from bench.build import ROOT, CannotBuild, run

PEERS = ROOT / "build" / "peers"
DTM = PEERS / "dtm"
TEMPORAL = PEERS / "temporal"
PYTHON = PEERS / "venv" / "bin" / "python"

DTM_VERSION = "v1.19.0"
TEMPORAL_CLI_VERSION = "v1.3.0"
DTM_TABLES = PEERS / "dtm-source" / "sqls" / "dtmsvr.storage.postgres.sql"

_REQUIREMENTS = ROOT / "bench" / "peers" / "requirements.txt"


def build_dtm() -> None:
    """Make DTM, unless it is there."""
    _go_module(f"github.com/dtm-labs/dtm@{DTM_VERSION}", ".", DTM)


def build_temporal() -> None:
    """Make Temporal's command line with its development server, unless it is there."""
    _go_module(f"github.com/temporalio/cli@{TEMPORAL_CLI_VERSION}", "./cmd/temporal", TEMPORAL)


def _go_module(module: str, package: str, program: Path) -> None:
    """Build a program of a module from a copy of its folder, for it is the main module there."""
    if program.exists():
        return
    PEERS.mkdir(parents=True, exist_ok=True)
    source = PEERS / f"{program.name}-source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(_downloaded(module), source)
    for folder in (source, *(path for path in source.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # the cache of modules is read-only
    run(["go", "build", "-o", str(program), package], folder=source)


def _downloaded(module: str) -> Path:
    command = ["go", "mod", "download", "-json", module]
    try:
        told = subprocess.run(command, check=True, capture_output=True, cwd=PEERS)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as failed:
        raise CannotBuild(f"{' '.join(command)}: {failed}") from failed
    return Path(json.loads(told.stdout)["Dir"])


def build_python() -> None:
    """Make the venv of the Python peers, unless it is there with what is pinned now."""
    stamp = PYTHON.parents[1] / "ready"
    if stamp.exists() and stamp.stat().st_mtime > _REQUIREMENTS.stat().st_mtime:
        return
    run([sys.executable, "-m", "venv", str(PYTHON.parents[1])], folder=ROOT)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "-r", str(_REQUIREMENTS)], folder=ROOT)
    stamp.touch()
