"""The inventory service: stock in MongoDB, and the step that reserves it for an order."""

from __future__ import annotations
