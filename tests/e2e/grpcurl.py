"""The real grpcurl against a running mesh."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from local.commands import Command

_OWN = Path(__file__).parents[2] / "build/bin/grpcurl"
_PACKAGES = {"saga": "coordinator"}


class Grpcurl:
    """Calls a method at the service that its package belongs to."""

    def __init__(self, address: Callable[[str], str]) -> None:
        binary = str(_OWN) if _OWN.exists() else shutil.which("grpcurl")
        if binary is None:
            pytest.fail("no grpcurl: run `make build/bin/grpcurl` (needs Go), or install it")
        self.binary = binary
        self._address = address

    def run(self, command: Command) -> subprocess.CompletedProcess[str]:
        """Run one command, whatever comes of it."""
        arguments = [self.binary, *command.arguments(self._address(command.service))]
        return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)

    def ask(self, service: str, verb: str) -> str:
        """What a server says about itself: `list`, `describe order.v1.OrderService`."""
        said = self.run(Command(title="", service=service, method=verb))
        assert said.returncode == 0, said.stderr
        return said.stdout

    def call(
        self, method: str, request: Mapping[str, object], metadata: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """The messages that a method answers with."""
        said = self.run(_command(method, request, metadata))
        assert said.returncode == 0, said.stderr
        return list(_messages(said.stdout))

    def refusal(
        self, method: str, request: Mapping[str, object], metadata: Mapping[str, str] | None = None
    ) -> str:
        """What a person reads when a method refuses."""
        said = self.run(_command(method, request, metadata))
        assert said.returncode != 0, said.stdout
        return said.stderr


def _command(
    method: str, request: Mapping[str, object], metadata: Mapping[str, str] | None
) -> Command:
    package = method.partition(".")[0]
    service = _PACKAGES.get(package, package)
    return Command(title="", service=service, method=method, request=request, metadata=metadata)


def _messages(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects that grpcurl prints one after the other."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        found, end = decoder.raw_decode(text)
        yield found
        text = text[end:]
