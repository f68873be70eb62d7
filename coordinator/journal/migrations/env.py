from __future__ import annotations

from mesh.migrate import run_migrations

run_migrations()
