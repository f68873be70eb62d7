"""The coordinator's durable log: the port and its two implementations."""

from __future__ import annotations
