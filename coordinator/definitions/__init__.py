"""YAML to compiled definitions: CEL over the participants' descriptors."""

from __future__ import annotations
