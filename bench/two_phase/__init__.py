"""Sagas beside two-phase commit: the same order over two PostgreSQL databases, done both ways."""

from __future__ import annotations
