"""How fast it is, measured by programs that anyone can run."""

from __future__ import annotations
