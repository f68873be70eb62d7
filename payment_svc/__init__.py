"""Payments: charges a card once, at a third party, and gives the money back when a saga aborts."""

from __future__ import annotations
