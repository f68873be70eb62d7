"""Registers the definitions of a folder at start, as soon as their participants can be asked.

Registering the same text again changes nothing, so every start may do it. A definition that does
not fit is said with all its errors, and tried again: its participant may be an old one that is
about to be replaced.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from coordinator.definitions.base import DefinitionRefused, Definitions
from coordinator.journal.base import JournalUnavailable

log = structlog.get_logger(__name__)


class ShippedDefinitions:
    """The `*.yaml` of one folder."""

    def __init__(self, definitions: Definitions, folder: Path, *, retry_seconds: float = 1) -> None:
        self._definitions = definitions
        self._folder = folder
        self._retry_seconds = retry_seconds
        self._told: dict[Path, str] = {}

    async def register(self) -> None:
        """Return once every definition of the folder is registered."""
        waiting = sorted(self._folder.glob("*.yaml"))
        while True:
            waiting = [path for path in waiting if not await self._registered(path)]
            if not waiting:
                return
            await asyncio.sleep(self._retry_seconds)

    async def _registered(self, path: Path) -> bool:
        try:
            source = await asyncio.to_thread(path.read_text, encoding="utf-8")
            registration = await self._definitions.register(source)
        except (DefinitionRefused, JournalUnavailable, OSError, UnicodeDecodeError) as error:
            self._tell(path, str(error))
            return False
        version = registration.version
        log.info("definition.registered", definition=version.name, hash=version.hash)
        return True

    def _tell(self, path: Path, why: str) -> None:
        if self._told.get(path) != why:  # once, not with every try
            self._told[path] = why
            log.warning("definition.not_registered", file=path.name, why=why)
