"""A saga whose participant goes away and comes back, over real connections."""

from __future__ import annotations

import asyncio
import random
import time

from coordinator.core.model import SagaState
from coordinator.engine.clock import LoopClock
from coordinator.engine.engine import Engine, EngineSettings
from coordinator.engine.ownership import OwnershipSettings
from coordinator.engine.ports import NewSaga, Ports
from coordinator.journal.memory import MemoryJournal, MemoryStore
from tests.builders import definition
from tests.integration.participants.participant import Health, contract, running, serve
from tests.unit.engine.world import Counts, Definitions

SERVICE = "test.v1.Charge"
SAGAS = 200


async def test_sagas_wait_for_a_participant_that_is_away_and_go_on_when_it_is_back() -> None:
    async with running(health=Health()) as payment:
        journal, counts = MemoryJournal(MemoryStore(lambda: time.time_ns() // 10**6)), Counts()
        ports = Ports(
            journal=journal,
            participants=payment.participants,
            clock=LoopClock(asyncio.get_running_loop()),
            stats=counts,
            chance=random.random,
        )
        settings = EngineSettings(ownership=OwnershipSettings(instance_id="one"))
        engine = Engine(settings, ports, definitions=Definitions())
        task = asyncio.create_task(engine.run())
        payment.participants.route([contract("payment", SERVICE)])
        await payment.server.stop(None)
        async with asyncio.timeout(30):
            while not engine.ready:
                await asyncio.sleep(0.01)
            for number in range(SAGAS):
                new = NewSaga(
                    saga_id=f"saga-{number}",
                    definition=definition("charge"),
                    input_bytes=b"in",
                    keys={},
                )
                await engine.start(new)
            while not engine.circuit_of(SERVICE).open:
                await asyncio.sleep(0.01)
            while engine.circuit_of(SERVICE).waiting < SAGAS:
                await asyncio.sleep(0.01)
            spent = counts.attempts["DO UNKNOWN"]
            await asyncio.sleep(2)
            assert counts.attempts["DO UNKNOWN"] == spent < SAGAS / 2
            payment.server, _ = await serve(payment.participant, payment.port)
            while counts.states[SagaState.COMPLETED] < SAGAS:
                await asyncio.sleep(0.01)
        task.cancel()
        assert counts.attempts["DO UNKNOWN"] == spent
