"""Documents, and the programs that draw some of them from the code."""

from __future__ import annotations
