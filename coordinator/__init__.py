"""The saga coordinator."""

from __future__ import annotations
