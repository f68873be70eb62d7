from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
TOLD = re.compile(r"\b_?log\.(?:info|warning|error|exception)\(\s*(?:#.*\s*)?\"([a-z_.]+)\"")


def test_every_event_that_is_logged_is_explained() -> None:
    explained = (ROOT / "docs" / "telemetry.md").read_text()
    sources = [source for part in ("coordinator", "mesh") for source in (ROOT / part).rglob("*.py")]
    events = {event for source in sources for event in TOLD.findall(source.read_text())}
    assert {"saga.ended", "instance_id.in_use", "barrier.purged"} <= events
    assert {event for event in events if f"`{event}`" not in explained} == set()
