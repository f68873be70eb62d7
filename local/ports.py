"""Free TCP ports of 127.0.0.1."""

from __future__ import annotations

import contextlib
import secrets
import socket

HOST = "127.0.0.1"

# Below the range that the kernel takes the near ends of connections from: a server that is killed
# and started again finds its port free, however many clients have connected meanwhile.
_FIRST, _LAST = 15_000, 32_000


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
