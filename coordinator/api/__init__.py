"""gRPC servicers: validate, call, convert; no decisions."""

from __future__ import annotations
