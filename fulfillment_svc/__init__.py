"""Shipments: what the warehouse is asked to send, and what it says has left."""

from __future__ import annotations
