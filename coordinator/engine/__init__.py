"""Runs sagas: decide, write, then act."""

from __future__ import annotations
