"""Where participants are: `PARTICIPANTS=order:50052,inventory:50053`.

Each entry, separated by commas, is one participant:

    order:50052                             its host is its name
    order=127.0.0.1:50052                   a name of its own, for instance on one machine
    order=10.0.0.1:50052|10.0.0.2:50052     a group: several instances of the same service

A group is given as IP addresses. Where one DNS name resolves to all instances, that name is enough:
calls by themselves go to each in turn, a step stream to one after the other (`streams.py`).
"""

from __future__ import annotations

import ipaddress
import re

_NAME = re.compile(r"[a-z][a-z0-9.-]{0,62}")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*):(?P<port>\d{1,5})")


class InvalidParticipants(ValueError):
    """The list of participants cannot be read; says which entry and how to write it."""


def parse_participants(text: str) -> dict[str, str]:
    """gRPC targets by the names of the participants.

    Raises:
        InvalidParticipants: with the entry and how to write it.
    """
    targets: dict[str, str] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, target = _participant(entry)
        if name in targets:
            raise InvalidParticipants(
                f"{entry}: there are two participants called {name}; give them names of their own,"
                f" as in order=HOST:PORT, or join them as one group, {name}=HOST:PORT|HOST:PORT"
            )
        targets[name] = target
    if not targets:
        raise InvalidParticipants("no participant: write at least one, such as order:50052")
    return targets


def addresses_of(target: str) -> list[str]:
    """A gRPC target for each address of a group; a single one is itself."""
    scheme, _, addresses = target.partition(":")
    if "," not in addresses:
        return [target]
    return [f"{scheme}:{address}" for address in addresses.split(",")]


def _participant(entry: str) -> tuple[str, str]:
    name, separator, addresses = entry.rpartition("=")
    hosts = [_address(address.strip(), entry) for address in addresses.split("|")]
    if not separator:
        name = hosts[0][0].lower()
    if not _NAME.fullmatch(name.strip()):
        raise InvalidParticipants(
            f"{entry}: {name.strip() or 'nothing'} is no name for a participant (small letters,"
            f" digits, dots and dashes, a letter first); write NAME={addresses.strip()}"
        )
    return name.strip(), _target(hosts, entry)


def _address(address: str, entry: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(address)
    if found is None or not 1 <= int(found["port"]) <= 65535:
        raise InvalidParticipants(
            f"{entry}: {address or 'nothing'} is no address; write HOST:PORT, as in order:50052"
        )
    return found["host"], int(found["port"])


def _target(hosts: list[tuple[str, int]], entry: str) -> str:
    if len(hosts) == 1:
        return f"{hosts[0][0]}:{hosts[0][1]}"
    numeric = [("127.0.0.1" if host == "localhost" else host, port) for host, port in hosts]
    versions = {_version(host) for host, _ in numeric}
    if len(versions) > 1 or None in versions:
        raise InvalidParticipants(
            f"{entry}: the addresses of a group are all IPv4 or all IPv6; where a DNS name resolves"
            " to every instance, write that name alone"
        )
    return f"ipv{versions.pop()}:" + ",".join(f"{host}:{port}" for host, port in numeric)


def _version(host: str) -> int | None:
    try:
        return ipaddress.ip_address(host.strip("[]")).version
    except ValueError:
        return None
