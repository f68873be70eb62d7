"""The fork server of all tests that kill a process: its children start with everything loaded.

There is one for the whole run, and what it has loaded is decided before the first fork.
"""

from __future__ import annotations

import multiprocessing

forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload(
    [
        "tests.crash_points.dying",
        "tests.integration.inventory.dying",
        "tests.integration.mesh.killed_participant",
        "tests.integration.payment.killed_till",
    ]
)
