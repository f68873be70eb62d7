"""Draws `docs/states.md` from the transition tables, so that it cannot drift from the code.

python -m docs.states --write docs/states.md
python -m docs.states --check docs/states.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

from coordinator.core.model import SagaState
from coordinator.core.transitions import (
    LEGAL_VERBS,
    ONE_WAY_VERBS,
    SAGA_TRANSITIONS,
    STEP_TRANSITIONS,
)

State = TypeVar("State", bound=Enum)
Trigger = TypeVar("Trigger", bound=Enum)

PAGE = """\
# States

Drawn from the tables in `coordinator/core/transitions.py` by `make docs`; `make check` fails when
it differs. The theory of operation is at the top of that file.

## A saga

```mermaid
stateDiagram-v2
    [*] --> RUNNING : StartSaga
{saga}
```

| state | verbs that are legal |
| --- | --- |
{verbs}

## A step

```mermaid
stateDiagram-v2
    [*] --> PENDING
{step}
```
"""


def arrows(table: Mapping[State, Mapping[Trigger, State]]) -> Iterable[str]:
    """Mermaid arrows of one machine; states that lead nowhere end it."""
    for state, moves in table.items():
        for trigger, target in moves.items():
            yield f"    {state.value} --> {target.value} : {trigger.value}"
        if not moves:
            yield f"    {state.value} --> [*]"


def verbs_of(state: SagaState) -> Iterable[str]:
    """The verbs that are legal in a state; where both directions are possible, in which."""
    for verb in LEGAL_VERBS[state]:
        one_way = state is SagaState.STUCK and verb in ONE_WAY_VERBS
        yield f"{verb} ({ONE_WAY_VERBS[verb]})" if one_way else verb


def page() -> str:
    """The whole document."""
    verbs = (f"| {state.value} | {', '.join(verbs_of(state)) or 'none'} |" for state in LEGAL_VERBS)
    return PAGE.format(
        saga="\n".join(arrows(SAGA_TRANSITIONS)),
        step="\n".join(arrows(STEP_TRANSITIONS)),
        verbs="\n".join(verbs),
    )


def main() -> int:
    """Write the page, or say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", type=Path, metavar="FILE")
    action.add_argument("--check", type=Path, metavar="FILE")
    asked = parser.parse_args()
    if asked.write:
        asked.write.write_text(page(), encoding="utf-8")
    elif asked.check.read_text(encoding="utf-8") != page():
        sys.stderr.write(f"{asked.check} is not what the tables say; run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
