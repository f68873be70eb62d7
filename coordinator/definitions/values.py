"""From the values of `saga.v1` to those of the core."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from coordinator.core.model import RetryPolicy
from protos.saga.v1 import saga_pb2

_NUMBERS = "max_attempts", "backoff_coefficient"
_DURATIONS = "initial_interval", "max_interval", "max_elapsed"


def retry_policy(policy: saga_pb2.RetryPolicy, default: RetryPolicy) -> RetryPolicy:
    """The policy with its unset fields taken from the default."""
    given: dict[str, Any] = {
        name: getattr(policy, name) for name in _NUMBERS if policy.HasField(name)
    } | {
        f"{name}_ms": getattr(policy, name).ToMilliseconds()
        for name in _DURATIONS
        if policy.HasField(name)
    }
    reasons = frozenset(policy.non_retryable_reasons)
    return replace(default, **given, non_retryable_reasons=reasons)
