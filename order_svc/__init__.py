"""Orders: the shop's front door, and the steps that write orders down and confirm them."""

from __future__ import annotations
