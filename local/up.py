"""`make up`: the mesh, to stay, and what to type to use it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from uuid_utils import uuid7

from local.commands import commands, script
from local.keeper import keep
from local.mesh import Mesh
from local.ports import HOST, Ports
from local.screen import Screen
from local.shop import FIRST_STOCK, open_shop


async def up(folder: Path, screen: Screen, *, coordinators: int = 1) -> None:
    """Start the mesh, print how to use it, and stay until cancelled.

    Raises:
        FolderTaken: another mesh runs on this folder.
        PortTaken: somebody else listens on one of its ports.
        StartFailed: a process did not get ready.
    """
    mesh = Mesh(folder, Ports(), coordinators=coordinators)
    screen.say(f"Starting the mesh on {folder} ...")
    async with mesh:
        async with open_shop(mesh.address) as shop:
            if await shop.is_empty():
                await shop.stock_up(FIRST_STOCK)
        screen.say(_how_to_use(mesh))
        with contextlib.suppress(asyncio.CancelledError):  # how `up` is told to end
            await asyncio.gather(*(keep(each, screen.say) for each in mesh.processes.values()))
        screen.say("\nStopping ...")


def _how_to_use(mesh: Mesh) -> str:
    name = f"try-{uuid7().hex[-6:]}"
    ports = "\n".join(_line(mesh, name, port) for name, port in mesh.listening.items())
    return (
        f"\nReady on {HOST}, by ports and process ids:\n{ports}\n"
        f"\nLogs: {mesh.folder / 'logs'}. grpcurl: `make build/bin/grpcurl`, or your own.\n"
        f"{script(commands(name, str(uuid7())), mesh.address)}\n"
        "\nKill what you like: it is started again in a while."
        " Ctrl-C stops everything; the data stays."
    )


def _line(mesh: Mesh, name: str, port: int) -> str:
    process = mesh.processes.get(name)
    return f"  {port:>5}  {name:<16}{process.pid if process else ''}".rstrip()
