"""The five orders of the demo: what each one is, what happens to it, and how it must end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from local.mesh import Mesh
from local.sandbox import Sandbox
from local.shop import Cart

VISA = "pm_card_visa"
DECLINED = "pm_card_chargeDeclined"

_HELD_UP_MS = 1_000
"""Long enough to be found in progress on a busy machine, and shorter than any time limit."""


Say = Callable[[str], None]
"""Tells the audience."""
Arrangement = Callable[[Mesh, Say], Coroutine[object, object, None]]


async def nothing(_mesh: Mesh, _say: Say) -> None:
    """Let the saga run undisturbed."""


async def hold_up_charge(mesh: Mesh, _say: Say) -> None:
    """Let the provider take its time."""
    await Sandbox(mesh.sandbox_url).slow_down(_HELD_UP_MS)


async def kill_payment(mesh: Mesh, say: Say) -> None:
    """Kill the payment service while the provider takes the money, and start it again."""
    await _kill_while_charging(mesh, "payment", say)


async def kill_coordinator(mesh: Mesh, say: Say) -> None:
    """Kill the coordinator while it waits for the payment, and start it again."""
    await _kill_while_charging(mesh, "coordinator", say)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One order and its fate."""

    title: str
    promise: str
    cart: Cart = field(default_factory=lambda: {"coffee": 2, "mug": 1})
    card: str = VISA
    before: Arrangement = nothing
    """What is arranged before the order is placed."""
    meanwhile: Arrangement = nothing
    """What happens while the saga runs."""
    reason: str = ""
    """Why the order is cancelled; empty when it is confirmed."""


SCENARIOS = (
    Scenario(
        title="(a) An order that goes through",
        promise="All done: confirmed, reserved, charged once, shipment requested.",
    ),
    Scenario(
        title="(b) A declined card",
        promise="All undone: the stock is released, the order cancelled.",
        card=DECLINED,
        reason="CARD_DECLINED",
    ),
    Scenario(
        title="(c) One item of three out of stock",
        promise="All undone: nothing is held, nothing was charged, the order is cancelled.",
        cart={"coffee": 1, "mug": 1, "grinder": 1},
        reason="OUT_OF_STOCK",
    ),
    Scenario(
        title="(d) The payment service is killed while it charges",
        promise="All done, and charged once, although the first answer never came.",
        before=hold_up_charge,
        meanwhile=kill_payment,
    ),
    Scenario(
        title="(e) The coordinator is killed in the middle of the saga",
        promise="All done: the saga goes on where it was, by itself.",
        before=hold_up_charge,
        meanwhile=kill_coordinator,
    ),
)


async def _kill_while_charging(mesh: Mesh, victim: str, say: Say) -> None:
    sandbox = Sandbox(mesh.sandbox_url)
    if not await sandbox.until_charging():
        raise TimeoutError("the charge never reached the provider")
    await mesh.services[victim].kill()
    say(f"  SIGKILL of {victim} while the provider takes the money")
    await sandbox.slow_down(0)
    await mesh.services[victim].start()
    say(f"  {victim} is back")
