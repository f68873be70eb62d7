"""Which TCP ports of 127.0.0.1 the mesh takes."""

from __future__ import annotations

import contextlib
import secrets
import socket
from typing import Self

from pydantic import AliasGenerator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

HOST = "127.0.0.1"

# Below the range that the kernel takes the near ends of connections from: a server that is killed
# and started again finds its port free, however many clients have connected meanwhile.
_FIRST, _LAST = 15_000, 32_000


class PortTaken(Exception):
    """Somebody else listens there; says which variable moves us elsewhere."""


def _variable(name: str) -> str:
    return f"{name.upper()}_PORT"


class Ports(BaseSettings):
    """One port for each process; ORDER_PORT moves `order`, and so on."""

    model_config = SettingsConfigDict(
        frozen=True,
        populate_by_name=True,
        alias_generator=AliasGenerator(validation_alias=_variable),
    )

    coordinator: int = 50051
    order: int = 50052
    inventory: int = 50053
    payment: int = 50054
    fulfillment: int = 50055
    console: int = Field(default=8080, description="the coordinator's web pages")
    sandbox: int = 12111
    postgres: int = 15432
    mongodb: int = 17017

    @classmethod
    def free(cls) -> Self:
        """Ports that are free now."""
        names = cls.model_fields
        return cls(**dict(zip(names, free_ports(len(names)), strict=True)))

    def check_free(self) -> None:
        """Make sure that every port can be had.

        Raises:
            PortTaken: names every port that cannot, and its variable.
        """
        taken = [(name, port) for name, port in self if not is_free(port)]
        if taken:
            raise PortTaken(
                "; ".join(
                    f"port {port} for {name} is in use: stop what listens there, or set "
                    f"{_variable(name)}"
                    for name, port in taken
                )
            )


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different."""
    ports: set[int] = set()
    while len(ports) < count:
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if is_free(port):
            ports.add(port)
    return list(ports)


def free_port() -> int:
    """A port that is free now."""
    return free_ports(1)[0]


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with contextlib.closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True
