"""A link on every way between two processes of the mesh, by the names of both: `order>postgres`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from tests.chaos.link import Link


class Links:
    """All links; `route` makes them while the mesh is built, `async with` runs them.

    links = Links(chance)
    mesh = Mesh(folder, Ports.free(), route=links.route)
    async with links, mesh: ...
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._links: dict[str, Link] = {}
        self._exit = AsyncExitStack()

    def route(self, client: str, server: str, port: int) -> int:
        """Put a link between the two and return where it listens; see `local.mesh.Route`."""
        link = self._links[f"{client}>{server}"] = Link(port, self._chance)
        return link.port

    def __getitem__(self, name: str) -> Link:
        """The link from a client to a server."""
        return self._links[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all links."""
        return tuple(self._links)

    async def __aenter__(self) -> Self:
        for link in self._links.values():
            await self._exit.enter_async_context(link)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exit.aclose()
