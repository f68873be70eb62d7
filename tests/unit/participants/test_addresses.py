from __future__ import annotations

import pytest

from coordinator.participants.addresses import InvalidParticipants, addresses_of, parse_participants


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("order:50052", {"order": "order:50052"}),
        (
            " order:50052 ,inventory:50053, ",
            {"order": "order:50052", "inventory": "inventory:50053"},
        ),
        ("order=127.0.0.1:50052", {"order": "127.0.0.1:50052"}),
        ("Order.shop.svc:1", {"order.shop.svc": "Order.shop.svc:1"}),
        ("order=[::1]:50052", {"order": "[::1]:50052"}),
        ("order=10.0.0.1:1|10.0.0.2:2", {"order": "ipv4:10.0.0.1:1,10.0.0.2:2"}),
        ("order=localhost:1 | localhost:2", {"order": "ipv4:127.0.0.1:1,127.0.0.1:2"}),
        ("order=[::1]:1|[::2]:1", {"order": "ipv6:[::1]:1,[::2]:1"}),
    ],
)
def test_participants_are_read(text: str, targets: dict[str, str]) -> None:
    assert parse_participants(text) == targets


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write at least one, such as order:50052"),
        (" , ", "write at least one"),
        ("order", "order: order is no address; write HOST:PORT"),
        ("order:", "order: is no address"),
        ("order:0", "order:0 is no address"),
        ("order:65536", "order:65536 is no address"),
        ("order=", "order=: nothing is no address"),
        ("http://order:50052", "http://order:50052 is no address"),
        ("order=a:1|", "nothing is no address"),
        ("=order:50052", "nothing is no name for a participant"),
        ("127.0.0.1:50052", "127.0.0.1 is no name for a participant"),
        ("127.0.0.1:50052", "write NAME=127.0.0.1:50052"),
        ("Order=a:1", "Order is no name for a participant"),
        ("a=b=c:1", "a=b is no name for a participant"),
        ("localhost:1,localhost:2", "there are two participants called localhost"),
        ("order:1,order=b:1", "join them as one group, order=HOST:PORT|HOST:PORT"),
        ("order=a:1|b:1", "where a DNS name resolves to every instance, write that name alone"),
        ("order=10.0.0.1:1|[::1]:1", "all IPv4 or all IPv6"),
    ],
)
def test_a_bad_list_says_how_to_write_it(text: str, words: str) -> None:
    with pytest.raises(InvalidParticipants) as refused:
        parse_participants(text)
    assert words in str(refused.value)


def test_each_address_of_a_group_is_a_target_by_itself() -> None:
    assert addresses_of("ipv4:10.0.0.1:50052,10.0.0.2:50053") == [
        "ipv4:10.0.0.1:50052",
        "ipv4:10.0.0.2:50053",
    ]
    assert addresses_of("ipv6:[::1]:50052,[::2]:50053") == ["ipv6:[::1]:50052", "ipv6:[::2]:50053"]
    assert addresses_of("order:50052") == ["order:50052"]
