"""Compares what participants hold with what the journal knows."""

from __future__ import annotations
