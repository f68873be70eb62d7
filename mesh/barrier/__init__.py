"""The guard of a participant: each effect happens at most once per saga and step."""

from __future__ import annotations
