from __future__ import annotations

import re
import socket

import pytest

from local.ports import HOST, Ports, PortTaken, free_port, free_ports


def test_a_taken_port_is_named_with_the_variable_that_moves_us() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        ports = Ports.free().model_copy(update={"order": port})
        said = re.escape(f"port {port} for order is in use") + ".* set ORDER_PORT"
        with pytest.raises(PortTaken, match=said):
            ports.check_free()


def test_every_taken_port_is_named() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        ports = Ports.free().model_copy(update={"order": port, "console": port})
        with pytest.raises(PortTaken, match=r"ORDER_PORT.*CONSOLE_PORT"):
            ports.check_free()


def test_a_variable_moves_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYMENT_PORT", "20001")
    assert Ports().payment == 20001


def test_free_ports_are_all_different() -> None:
    assert len(set(free_ports(100))) == 100


def test_a_free_port_is_never_one_that_clients_are_given() -> None:
    with socket.create_server((HOST, 0)) as listener:
        assert free_port() < listener.getsockname()[1]


def test_free_ports_can_all_be_had() -> None:
    Ports.free().check_free()
