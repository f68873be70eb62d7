"""Registered definitions: compiled against running participants, kept in a store, found again.

What StartSaga needs at every call is the newest version of a name, as of that moment: another
coordinator may have registered one. What the store answers is good for a quarter of a second, and
whoever makes another version the newest waits as long before saying so: from then on nobody starts
a saga of the older one. While starts come the store is asked again before that time is over, so
that none has to wait for it. It is asked once by all callers that wait together (see `sharing.py`),
and what it answers is compiled once for each hash.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import structlog
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from coordinator.definitions.base import (
    CompiledDefinition,
    DefinitionRefused,
    DefinitionWarning,
    Registration,
)
from coordinator.definitions.compiler import Compilation, compile_definition, compile_stored
from coordinator.definitions.lookup import DescriptorLookup
from coordinator.definitions.pool import build_pool
from coordinator.definitions.services import Offer
from coordinator.definitions.sharing import Sharing
from coordinator.journal.definition_store import DefinitionStore, StoredDefinition
from coordinator.participants.base import Contracts

log = structlog.get_logger(__name__)

MAX_COMPILED = 64
"""Versions kept compiled; one of five steps takes about 1 MB."""
MAX_LISTED = 500
"""Definitions whose types reflection knows."""
GOOD_FOR_SECONDS = 0.25
"""How long after the store was asked a version passes for the newest."""


class Registry:
    """`base.Definitions` over a store and the contracts of running participants."""

    def __init__(self, store: DefinitionStore, contracts: Contracts) -> None:
        self._store = store
        self._contracts = contracts
        self._compiled: OrderedDict[str, CompiledDefinition] = OrderedDict()
        self._compiling = asyncio.Lock()
        self._newest = Sharing(store.newest_definition)
        self._told: dict[str, tuple[str, float]] = {}
        """By name, the hash of the newest version, and until when that is good."""
        self._asked_ahead: dict[str, asyncio.Task[CompiledDefinition | None]] = {}

    async def register(self, source: str) -> Registration:
        """See `base.Definitions`."""
        compilation = await self._compile(source)
        version = compilation.version
        before = await self._store.newest_definition(version.name)
        stored, created = await self._store.save_definition(
            name=version.name,
            content_hash=version.hash,
            source=source,
            descriptors=version.descriptors,
        )
        if before is not None and before.hash != stored.hash:
            await asyncio.sleep(GOOD_FOR_SECONDS)
        return Registration(
            version=await self._of(stored), created=created, warnings=compilation.warnings
        )

    async def validate(self, source: str) -> tuple[DefinitionWarning, ...]:
        """See `base.Definitions`."""
        return (await self._compile(source)).warnings

    def at_hand(self, name: str, content_hash: str = "") -> CompiledDefinition | None:
        """See `base.Definitions`."""
        if content_hash:
            return self._cached(content_hash)
        newest, until = self._told.get(name, ("", 0.0))
        left = until - _now()
        if left <= 0:
            return None
        if left < GOOD_FOR_SECONDS / 2 and name not in self._asked_ahead:
            self._ask_ahead(name)
        return self._cached(newest)

    def _ask_ahead(self, name: str) -> None:
        """Who starts a saga when the time is over finds the answer, or asks, and hears, again."""
        asking = asyncio.create_task(self.newest(name))
        self._asked_ahead[name] = asking
        asking.add_done_callback(partial(self._answered_ahead, name))

    def _answered_ahead(self, name: str, asking: asyncio.Task[CompiledDefinition | None]) -> None:
        del self._asked_ahead[name]
        if not asking.cancelled() and (error := asking.exception()) is not None:
            log.debug("definitions.not_told", definition=name, why=type(error).__name__)

    async def newest(self, name: str) -> CompiledDefinition | None:
        """See `base.Definitions`."""
        until = _now() + GOOD_FOR_SECONDS
        stored = await self._newest(name)
        if stored is None:
            return None
        self._told[name] = stored.hash, until
        return await self._of(stored)

    async def load(self, content_hash: str) -> CompiledDefinition | None:
        """See `base.Definitions`."""
        if (compiled := self._cached(content_hash)) is not None:
            return compiled
        stored = await self._store.load_definition(content_hash)
        return None if stored is None else await self._of(stored)

    async def list(self, *, after: str = "", limit: int = 50) -> Sequence[CompiledDefinition]:
        """See `base.Definitions`."""
        listed = await self._store.list_definitions(after=after, limit=limit)
        return [await self._of(stored) for stored in listed]

    async def descriptors(self) -> DescriptorLookup:
        """See `base.Definitions`."""
        listed = await self._store.list_definitions(after="", limit=MAX_LISTED)
        newest_first = sorted(listed, key=lambda stored: stored.created_ms, reverse=True)
        pools = [build_pool(FileDescriptorSet.FromString(s.descriptors)) for s in newest_first]
        return DescriptorLookup([*pools, descriptor_pool.Default()])

    async def _compile(self, source: str) -> Compilation:
        try:
            return await self._compile_now(source)
        except DefinitionRefused as refused:
            if all(problem.reason != "PARTICIPANT_UNREACHABLE" for problem in refused.problems):
                raise
        # It may just have been restarting.
        return await self._compile_now(source)

    async def _compile_now(self, source: str) -> Compilation:
        offer = Offer.of(await self._contracts.fetch())
        # A long text takes a second or two, in which heartbeats must go on.
        return await asyncio.to_thread(compile_definition, source, offer)

    async def _of(self, stored: StoredDefinition) -> CompiledDefinition:
        """Compiled once, also when many ask at the same time."""
        if (compiled := self._cached(stored.hash)) is not None:
            return compiled
        async with self._compiling:
            compiled = self._cached(stored.hash)
            if compiled is None:
                compiled = self._keep(await asyncio.to_thread(compile_stored, stored))
            return compiled

    def _cached(self, content_hash: str) -> CompiledDefinition | None:
        if content_hash in self._compiled:
            self._compiled.move_to_end(content_hash)
        return self._compiled.get(content_hash)

    def _keep(self, compiled: CompiledDefinition) -> CompiledDefinition:
        self._compiled[compiled.hash] = compiled
        if len(self._compiled) > MAX_COMPILED:
            self._compiled.popitem(last=False)
        return compiled


def _now() -> float:
    """A clock that never jumps, in seconds."""
    return asyncio.get_running_loop().time()
