"""Money: `google.type.Money` on the wire, integer minor units (cents) with a currency at rest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from google.type import money_pb2

NANOS_PER_UNIT = 1_000_000_000
MAX_MINOR_UNITS = 2**63 - 1

_CURRENCY = re.compile(r"[A-Z]{3}")
_EXPONENTS = {
    currency: exponent
    for exponent, currencies in {
        0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
        3: "BHD IQD JOD KWD LYD OMR TND",
        4: "CLF UYW",
    }.items()
    for currency in currencies.split()
}


class InvalidMoney(ValueError):
    """An amount that its currency cannot express; the words say why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """An exact amount."""

    minor_units: int
    """The amount times ten to the currency's exponent: cents, yen, fils."""
    currency: str
    """ISO 4217 code, such as EUR."""


def exponent(currency: str) -> int:
    """How many decimal places the currency has.

    Raises:
        InvalidMoney: not three capital letters.
    """
    if not _CURRENCY.fullmatch(currency):
        raise InvalidMoney(f"currency must be three capital letters (ISO 4217), not {currency!r}")
    return _EXPONENTS.get(currency, 2)


def from_proto(amount: money_pb2.Money) -> Money:
    """Read an amount off the wire.

    Raises:
        InvalidMoney: malformed currency, units and nanos of different sign or out of range, more
            decimal places than the currency has, or more than 64 bits of minor units.
    """
    nanos_per_minor = NANOS_PER_UNIT // 10 ** exponent(amount.currency_code)
    if abs(amount.nanos) >= NANOS_PER_UNIT:
        raise InvalidMoney("nanos must be between -999,999,999 and +999,999,999")
    if amount.units * amount.nanos < 0:
        raise InvalidMoney("units and nanos must have the same sign")
    total = amount.units * NANOS_PER_UNIT + amount.nanos
    if total % nanos_per_minor:
        places = exponent(amount.currency_code)
        raise InvalidMoney(f"{amount.currency_code} has {places} decimal places, nanos has more")
    return _in_range(Money(minor_units=total // nanos_per_minor, currency=amount.currency_code))


def to_proto(amount: Money) -> money_pb2.Money:
    """Put an amount on the wire.

    Raises:
        InvalidMoney: malformed currency, or more than 64 bits of minor units.
    """
    scale = 10 ** exponent(_in_range(amount).currency)
    sign = -1 if amount.minor_units < 0 else 1
    units, rest = divmod(abs(amount.minor_units), scale)
    return money_pb2.Money(
        currency_code=amount.currency,
        units=sign * units,
        nanos=sign * rest * (NANOS_PER_UNIT // scale),
    )


def positive(amount: Money) -> Money:
    """The amount itself.

    Raises:
        InvalidMoney: it is zero or less.
    """
    if amount.minor_units <= 0:
        raise InvalidMoney("the amount must be more than zero")
    return amount


def not_negative(amount: Money) -> Money:
    """The amount itself.

    Raises:
        InvalidMoney: it is less than zero.
    """
    if amount.minor_units < 0:
        raise InvalidMoney("the amount must not be negative")
    return amount


def _in_range(amount: Money) -> Money:
    if abs(amount.minor_units) > MAX_MINOR_UNITS:
        raise InvalidMoney(f"the amount must fit 64 bits of {amount.currency} minor units")
    return amount
