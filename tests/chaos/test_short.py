"""Chaos in its short form: a minute of faults under orders, and every promise holds afterwards.

The seed is fixed, so that faults of every kind come, and both coordinators fall more than once;
`make chaos` draws others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.figures import report
from tests.chaos.records import StoredSaga, save
from tests.chaos.run import Chaos, first_run, perform

SEED, SECONDS, RATE = 40, 60, 4


async def unwatched(_chaos: Chaos) -> None:
    """Show nothing."""


@pytest.mark.timeout(300)
async def test_every_promise_holds_after_a_minute_of_chaos(new_folder: Callable[[], Path]) -> None:
    folder = new_folder()
    history = await perform(first_run(seed=SEED, seconds=SECONDS, rate=RATE), folder, unwatched)
    save(folder, history)
    said = list(report(history))
    assert "promises  all held" in said, "\n".join(said)
    states = {saga.state for saga in history.all(StoredSaga)}
    assert states == {"COMPLETED", "COMPENSATED"}
