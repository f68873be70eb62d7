"""What the console shows, and the alert rules that read it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from ruamel.yaml import YAML

from coordinator.console.circuits import CircuitGauges
from coordinator.console.metrics import Metrics
from coordinator.console.orphans import OrphanGauges
from coordinator.console.stuck import StuckGauges
from coordinator.console.ways import WayMetrics
from coordinator.core.model import SagaState
from coordinator.engine.errors import Excess
from coordinator.engine.gate import Condition
from coordinator.journal.memory import MemoryJournal, MemoryStore
from coordinator.participants.base import Ways

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "ops" / "prometheus" / "alerts.yml"
CONDITION = Condition(
    participant="payment", open=True, since_ms=1, waiting=5, in_flight=2, failure=None
)

WAYS = Ways(participant="payment", streams=1, streamed=7, alone=2)


def shown(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def everything() -> CollectorRegistry:
    """A registry with all that a coordinator shows."""
    metrics = Metrics()
    metrics.gauge("saga_in_memory", "", lambda: 0)
    CircuitGauges(metrics.registry, lambda: [CONDITION])
    WayMetrics(metrics.registry, lambda: [WAYS])
    StuckGauges(metrics.registry, MemoryJournal(MemoryStore(lambda: 0)))
    OrphanGauges(metrics.registry, now_ms=lambda: 0)
    return metrics.registry


def names() -> set[str]:
    """Every metric as Prometheus knows it."""
    families = [family for family in everything().collect() if family.name.startswith("saga_")]
    return {f"{f.name}_total" if f.type == "counter" else f.name for f in families}


def rules() -> list[Any]:
    groups = YAML(typ="safe").load(ALERTS)["groups"]
    return [pytest.param(rule, id=rule["alert"]) for group in groups for rule in group["rules"]]


def test_each_participant_shows_by_which_way_it_is_called() -> None:
    registry = CollectorRegistry()
    WayMetrics(registry, lambda: [WAYS])
    text = shown(registry)
    assert 'saga_streams{participant="payment"} 1.0' in text
    assert 'saga_calls_total{participant="payment",way="stream"} 7.0' in text
    assert 'saga_calls_total{participant="payment",way="alone"} 2.0' in text


def test_each_participant_shows_its_circuit_and_its_calls() -> None:
    registry = CollectorRegistry()
    other = replace(CONDITION, participant="order", open=False, waiting=0, in_flight=1)
    CircuitGauges(registry, lambda: [CONDITION, other])
    text = shown(registry)
    assert 'saga_circuit_open{participant="payment"} 1.0' in text
    assert 'saga_circuit_open{participant="order"} 0.0' in text
    assert 'saga_calls_waiting{participant="payment"} 5.0' in text
    assert 'saga_calls_in_flight{participant="order"} 1.0' in text


def test_a_start_that_was_refused_is_counted_by_what_there_was_too_much_of() -> None:
    metrics = Metrics()
    metrics.shed(Excess.CALLS)
    assert 'saga_shed_total{reason="calls"} 1.0' in shown(metrics.registry)


def test_counters_begin_at_zero_so_that_the_first_increase_is_seen() -> None:
    text = shown(Metrics().registry)
    assert 'saga_shed_total{reason="sagas"} 0.0' in text
    assert 'saga_ended_total{state="STUCK"} 0.0' in text
    assert 'saga_attempts_total{direction="DO",outcome="MISCONFIGURED"} 0.0' in text
    assert f'state="{SagaState.RUNNING.value}"' not in text


@pytest.mark.parametrize("rule", rules())
def test_an_alert_reads_metrics_that_exist_and_says_what_to_do(rule: dict[str, Any]) -> None:
    read = set(re.findall(r"\bsaga_[a-z_]+", rule["expr"])) or {"up"}
    assert read <= names() | {"up"}
    assert rule["labels"]["severity"] in {"page", "warn"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    assert rule["expr"].count("(") == rule["expr"].count(")")


def test_every_metric_is_explained() -> None:
    explained = (ROOT / "docs" / "telemetry.md").read_text()
    assert {name for name in names() if f"`{name}`" not in explained} == set()


def test_prometheus_reads_the_alerts() -> None:
    settings = YAML(typ="safe").load(ROOT / "ops" / "prometheus" / "prometheus.yml")
    assert settings["rule_files"] == [ALERTS.name]
