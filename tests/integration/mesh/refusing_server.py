"""A PostgreSQL server that refuses clients: `refusing_server.py SQLSTATE [HOST PORT]`.

It prints its port. With an address only the first client is refused; the others get through to the
server that is there. A process of its own, because libpq's ping stops every thread of a client.
"""

from __future__ import annotations

import itertools
import socket
import socketserver
import sys
import threading

_ASKS_FOR_TLS = 8
"""Bytes of the message by which a client asks; what comes after it, or at once, is its start."""


class Refusing(socketserver.BaseRequestHandler):
    """One client."""

    request: socket.socket
    clients = itertools.count()

    def handle(self) -> None:
        sqlstate, *address = sys.argv[1:]
        if address and next(self.clients) > 0:
            self._let_through((address[0], int(address[1])))
            return
        while int.from_bytes(self.request.recv(4)) == _ASKS_FOR_TLS:
            self.request.recv(4)
            self.request.sendall(b"N")
        fields = f"SFATAL\0VFATAL\0C{sqlstate}\0Mnein\0\0".encode()
        self.request.sendall(b"E" + (4 + len(fields)).to_bytes(4) + fields)

    def _let_through(self, address: tuple[str, int]) -> None:
        with socket.create_connection(address) as server:
            threading.Thread(target=_pump, args=(server, self.request), daemon=True).start()
            _pump(self.request, server)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    while data := source.recv(4096):
        sink.sendall(data)


if __name__ == "__main__":
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as refusing:
        refusing.daemon_threads = True
        print(refusing.server_address[1], flush=True)  # noqa: T201 - who starts it reads it
        refusing.serve_forever()
