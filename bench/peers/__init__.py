"""Those whom users could pick instead, on the same machine in the same run."""

from __future__ import annotations
