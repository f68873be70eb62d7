"""What every service of the mesh shares: steps, the barrier, the server, errors, telemetry."""

from __future__ import annotations
