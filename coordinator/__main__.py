"""`python -m coordinator`: run one coordinator; `--help` lists its environment variables."""

from __future__ import annotations

from coordinator.app import main
from coordinator.settings import Settings
from mesh.settings import run

if __name__ == "__main__":
    run(Settings, main, service="coordinator")
