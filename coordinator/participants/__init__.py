"""Calls to participants: the port, gRPC, and what an answer means."""

from __future__ import annotations
