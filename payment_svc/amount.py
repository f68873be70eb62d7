"""Amounts as Stripe counts them: ISO 4217 minor units, with three exceptions.

Króna and Ugandan shilling have no decimals, but Stripe takes them with two; ariary have two, but
Stripe takes them with none. The ISO amount would charge a hundred times too little or too much.
https://docs.stripe.com/currencies#special-cases
"""

from __future__ import annotations

from mesh.money import InvalidMoney, Money, exponent

_STRIPE_EXPONENTS = {"ISK": 2, "UGX": 2, "MGA": 0}


def to_stripe(amount: Money) -> int:
    """The integer to send.

    Raises:
        InvalidMoney: Stripe cannot express this amount.
    """
    iso = exponent(amount.currency)
    scaled = amount.minor_units * 10 ** _STRIPE_EXPONENTS.get(amount.currency, iso)
    minor, rest = divmod(scaled, 10**iso)
    if rest:
        raise InvalidMoney(f"{amount.currency} can only be charged in whole units")
    return int(minor)
