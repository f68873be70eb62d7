"""What a saga is and what happens next: pure, standard library only."""

from __future__ import annotations
