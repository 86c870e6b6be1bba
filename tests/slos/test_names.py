"""The names in rules, dashboards and queries are those that agentguard tells its metrics by."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from agentguard import _metrics
from agentguard.slo_formats import FORMATS, export
from agentguard.slos import Slo, Window

MONTH = Window(seconds=28 * 86_400)
REFUNDS = Slo("refunds", "success", workflow="w", target=Decimal("0.95"), window=MONTH)
TOLD: list[Callable[[], None]] = [
    lambda: _metrics.run_ended("w", "success"),
    lambda: _metrics.tool_ended("t", "ok", "write", 1.0),
    lambda: _metrics.verified("v", "pass"),
    lambda: _metrics.escalated("w", "approval"),
    lambda: _metrics.cost("w", "model", Decimal(1)),
    lambda: _metrics.slo_known("refunds"),
    lambda: _metrics.autonomy_changed("t", "auto", "approve"),
]


@pytest.fixture(name="told")
def what_is_told(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Tell one of each; return label names by counter, as Prometheus' exporters spell both."""
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(_metrics, "_METER", meters.get_meter("agentguard"))
    monkeypatch.setattr(_metrics, "_made", {})
    for tell in TOLD:
        tell()
    data: Any = reader.get_metrics_data()
    (resource,) = data.resource_metrics
    return {
        f"{spelt(metric.name)}_total": {spelt(label) for p in points for label in p.attributes}
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name in _metrics.COUNTERS
        for points in [metric.data.data_points]
    }


def spelt(name: str) -> str:
    """Spell a name as Prometheus does."""
    return name.replace(".", "_")


@pytest.mark.parametrize("to", FORMATS)
def test_every_metric_and_label_that_is_read_is_told(told: dict[str, set[str]], to: str) -> None:
    """Each counter that an exported file reads is one of agentguard's, and so are its labels."""
    text = export([REFUNDS], to).text
    counters = set(re.findall(r"\bagentguard_\w+_total\b", text))
    assert counters <= set(told)
    assert bool(counters) == (to != "openslo")
    labels = set(re.findall(r"\b(?:agentguard|gen_ai)_\w+\b", text)) - counters
    assert labels <= {label for name in told for label in told[name]}


def test_the_dashboard_shows_the_four_families(told: dict[str, set[str]]) -> None:
    """Every counter that people ask for has a panel."""
    board = json.loads(export([REFUNDS], "grafana").text)
    text = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    assert set(told) == set(re.findall(r"\bagentguard_\w+_total\b", text))


def test_both_outcomes_of_a_service_level_are_told_before_the_first(
    told: dict[str, set[str]],
) -> None:
    """A counter that begins at 1 seems never to have grown: both begin at 0."""
    assert told["agentguard_slo_outcomes_total"] == {
        "agentguard_slo_name", "agentguard_slo_outcome",
    }  # fmt: skip
