"""The payment service is killed (SIGKILL) at every moment of a call; then the call is repeated."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc.aio
import pytest

from tests.forks import forkserver
from tests.integration.payment import killed_till
from tests.integration.payment.killed_till import ANSWERED, Run
from tests.integration.payment.till import AMOUNT, SDK_WARNS, VISA, Sandbox, Till
from tests.refusals import refused

pytestmark = SDK_WARNS

DECLINED = "pm_card_chargeDeclinedOnce"
FEWEST_MOMENTS, MOST_MOMENTS = 5, 30


@pytest.fixture
def every_kill(till: Till, sandbox: Sandbox, payment_dsn: str) -> EveryKill:
    return EveryKill(till, sandbox.url, payment_dsn)


class EveryKill:
    """A call, killed at its first moment, its second and so on, each in a saga of its own."""

    def __init__(self, till: Till, api_base: str, dsn: str) -> None:
        self._till = till
        self._api_base = api_base
        self._dsn = dsn

    async def of_do(self, token: str) -> AsyncIterator[Till]:
        """The sagas whose Do was killed."""
        for moment in itertools.count(1):
            till = replace(self._till, saga_id=f"{self._till.saga_id}-{moment}")
            if await self._is_over(moment, till, token, compensate=False):
                return
            yield till

    async def of_compensate(self) -> AsyncIterator[Till]:
        """The sagas whose Compensate was killed, after a Do that has charged."""
        for moment in itertools.count(1):
            till = replace(self._till, saga_id=f"{self._till.saga_id}-{moment}")
            await till.do()
            if await self._is_over(moment, till, VISA, compensate=True):
                return
            yield till

    async def _is_over(self, moment: int, till: Till, token: str, *, compensate: bool) -> bool:
        assert moment < MOST_MOMENTS
        call = Run(
            dsn=self._dsn,
            api_base=self._api_base,
            saga_id=till.saga_id,
            request=till.request(token).SerializeToString(),
            compensate=compensate,
            kill_at=moment,
        )
        answered = await exit_code(call) == ANSWERED
        assert moment > FEWEST_MOMENTS or not answered, "too few moments were reached"
        return answered


async def exit_code(call: Run) -> int | None:
    process = forkserver.Process(target=killed_till.run, args=(call,))
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode in {ANSWERED, -signal.SIGKILL}
    return process.exitcode


async def test_a_killed_charge_has_been_made_once_when_it_is_repeated(
    every_kill: EveryKill, sandbox: Sandbox
) -> None:
    async for till in every_kill.of_do(VISA):
        await till.done()
        assert [line["captured"] for line in await sandbox.payments(till.saga_id)] == [AMOUNT]
        assert await till.state() == "CHARGED"


async def test_a_killed_charge_leaves_nothing_when_it_is_compensated(
    every_kill: EveryKill, sandbox: Sandbox
) -> None:
    async for till in every_kill.of_do(VISA):
        await till.compensated()
        assert await sandbox.kept(till.saga_id) == 0
        async with refused() as refusal:
            await till.do()
        assert refusal.reason == "STEP_ALREADY_COMPENSATED"
        assert await sandbox.kept(till.saga_id) == 0


async def test_a_killed_rejection_is_rejected_and_takes_nothing(
    every_kill: EveryKill, sandbox: Sandbox
) -> None:
    async for till in every_kill.of_do(DECLINED):
        with pytest.raises(grpc.aio.AioRpcError, match="CARD_DECLINED"):
            await till.done(DECLINED)
        line = await sandbox.payment(till.saga_id)
        assert (line["status"], line["captured"]) == ("canceled", 0)
        assert await till.state() == "DECLINED"


async def test_a_killed_refund_has_been_made_once_when_it_is_repeated(
    every_kill: EveryKill, sandbox: Sandbox
) -> None:
    async for till in every_kill.of_compensate():
        await till.compensated()
        line = await sandbox.payment(till.saga_id)
        assert (line["captured"], line["refunded"], len(line["refunds"])) == (AMOUNT, AMOUNT, 1)
        assert await till.state() == "REFUNDED"
