"""What a definition's own values must be like, whatever its participants serve."""

from __future__ import annotations

import re
from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from coordinator.core.model import COMPENSATION_RETRY, RetryPolicy
from coordinator.definitions.findings import Findings
from coordinator.definitions.values import retry_policy
from protos.saga.v1 import saga_pb2

DAY_MS = 24 * 3_600_000
MAX_STEPS = 100
MAX_KEYS = 20
MAX_COEFFICIENT = 100.0

_DEFINITION_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,47}")
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")

# CEL's keywords, its names of types, and the one name that is always in scope.
RESERVED_NAME = re.compile(
    "as|break|const|continue|else|false|for|function|if|import|in|let|loop|namespace|null|package"
    "|return|true|var|void|while"
    "|bool|bytes|double|dyn|int|list|map|null_type|optional_type|string|type|uint"
    "|input"
)


def check_values(definition: saga_pb2.Definition, findings: Findings) -> None:
    """Add everything that is wrong with names, durations and retry policies."""
    _Checks(findings).definition(definition)


def is_step_name(name: str) -> bool:
    """Whether a step of this name can be named in expressions."""
    return bool(_IDENTIFIER.fullmatch(name)) and not RESERVED_NAME.fullmatch(name)


class _Checks:
    """One method for each message, with the path of what it checks."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def definition(self, definition: saga_pb2.Definition) -> None:
        self._name("name", definition.name, _DEFINITION_NAME)
        self._given("input", definition.input, "the message type that StartSaga takes")
        if definition.HasField("deadline"):
            self._duration("deadline", definition.deadline, longest_ms=365 * DAY_MS)
        self._keys(definition.keys)
        self._steps(definition.steps)

    def _keys(self, keys: Iterable[str]) -> None:
        names = list(keys)
        if len(names) > MAX_KEYS:
            self._problem("keys", "TOO_MANY_KEYS", f"{len(names)} keys; at most {MAX_KEYS}")
        for name in names:
            self._name(f"keys.{name}", name, _IDENTIFIER)

    def _steps(self, steps: Iterable[saga_pb2.Step]) -> None:
        listed = list(steps)
        if not listed and not self._findings.faulty("steps"):
            self._problem("steps", "MISSING", "a definition has at least one step")
        if len(listed) > MAX_STEPS:
            self._problem("steps", "TOO_MANY_STEPS", f"{len(listed)} steps; at most {MAX_STEPS}")
        first: dict[str, int] = {}
        for number, step in enumerate(listed):
            path = f"steps[{number}]"
            self._step(step, path)
            if step.name and first.setdefault(step.name, number) != number:
                message = f"steps[{first[step.name]}] is called {step.name} too"
                self._problem(f"{path}.name", "DUPLICATE_STEP", message)

    def _step(self, step: saga_pb2.Step, path: str) -> None:
        self._name(f"{path}.name", step.name, _IDENTIFIER)
        if RESERVED_NAME.fullmatch(step.name):
            message = f"{step.name} means something else in expressions; choose another name"
            self._problem(f"{path}.name", "RESERVED_NAME", message)
        self._given(f"{path}.service", step.service, "the full name of a step service")
        self._given(f"{path}.request", step.request, "an expression that builds the Do request")
        if step.HasField("timeout"):
            self._duration(f"{path}.timeout", step.timeout, longest_ms=DAY_MS // 24)
        for name, default in (("retry", RetryPolicy()), ("compensation_retry", COMPENSATION_RETRY)):
            if step.HasField(name):
                self._retry(f"{path}.{name}", getattr(step, name), default)

    def _retry(self, path: str, policy: saga_pb2.RetryPolicy, default: RetryPolicy) -> None:
        for name in ("initial_interval", "max_interval", "max_elapsed"):
            if policy.HasField(name):
                longest = 365 * DAY_MS if name == "max_elapsed" else DAY_MS
                self._duration(f"{path}.{name}", getattr(policy, name), longest_ms=longest)
        if policy.HasField("max_attempts") and policy.max_attempts < 1:
            message = f"at least 1, given {policy.max_attempts}"
            self._problem(f"{path}.max_attempts", "OUT_OF_RANGE", message)
        self._coefficient(f"{path}.backoff_coefficient", policy)
        self._intervals(path, retry_policy(policy, default))
        for number, reason in enumerate(policy.non_retryable_reasons):
            self._name(f"{path}.non_retryable_reasons[{number}]", reason, _REASON)

    def _coefficient(self, path: str, policy: saga_pb2.RetryPolicy) -> None:
        value = policy.backoff_coefficient
        if policy.HasField("backoff_coefficient") and not 1 <= value <= MAX_COEFFICIENT:
            message = f"from 1 to {MAX_COEFFICIENT:g}, given {value:g}"
            self._problem(path, "OUT_OF_RANGE", message)

    def _intervals(self, path: str, policy: RetryPolicy) -> None:
        if policy.initial_interval_ms > policy.max_interval_ms:
            message = (
                f"the first wait ({_seconds(policy.initial_interval_ms)}) is longer than"
                f" max_interval ({_seconds(policy.max_interval_ms)})"
            )
            self._problem(f"{path}.initial_interval", "OUT_OF_RANGE", message)

    def _duration(self, path: str, duration: Duration, *, longest_ms: int) -> None:
        given_ms = duration.ToNanoseconds() / 1_000_000
        if not (given_ms.is_integer() and 1 <= given_ms <= longest_ms):
            message = (
                f"from 0.001s to {_seconds(longest_ms)} in whole milliseconds,"
                f" given {duration.ToJsonString()}"
            )
            self._problem(path, "OUT_OF_RANGE", message)

    def _given(self, path: str, value: str, what: str) -> None:
        if not value.strip() and not self._findings.faulty(path):
            self._problem(path, "MISSING", f"{path.rpartition('.')[2]} is missing: {what}")

    def _name(self, path: str, value: str, pattern: re.Pattern[str]) -> None:
        if not value:
            self._given(path, value, f"a name that matches {pattern.pattern}")
        elif not pattern.fullmatch(value):
            self._problem(path, "BAD_NAME", f"must match {pattern.pattern}, given {value!r}")

    def _problem(self, path: str, reason: str, message: str) -> None:
        self._findings.problem(path, reason, message)


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.15g}s"
