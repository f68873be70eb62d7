"""The cyclic garbage collector of a process that serves."""

from __future__ import annotations

import gc


def spare_the_collector() -> None:
    """Let it look seldom, and never at what start-up has made.

    Calls and sagas come and go without cycles. At the default thresholds a thousand in flight are
    taken for a leak in every batch, and the collector walks everything there is: 40 % of the CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
