"""Metrics through the OpenTelemetry API alone: counted where a fact is known, low in cardinality.

No label holds an id of a run, a key, a tenant, an argument or a person: only names that are
written in code and configuration. Without a MeterProvider all of this does nothing.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from ._scope import SCOPE, TOOL_NAME, VERSION, WORKFLOW, broken

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from opentelemetry.metrics import Meter

_CENTS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 100.0)
_CALLS = tuple(round(0.01 * 2**n, 2) for n in range(14))  # as the conventions advise for tools
_RUNS = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0)
_PEOPLE = (10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14400.0, 43200.0, 86400.0, 259200.0, 604800.0)

COUNTERS = {
    "agentguard.runs": "Parts of runs that were left, by how they ended.",
    "agentguard.tool_calls": "Guarded calls of tools, by how they ended.",
    "agentguard.verifications": "Verdicts on outcomes of tools and of runs.",
    "agentguard.escalations": "How often a run turned to people.",
    "agentguard.cost_usd": "US dollars spent, as far as prices are known.",
    "agentguard.budget.exceeded": "Refusals because a budget had no room.",
    "agentguard.slo.outcomes": "Outcomes counted for a service level objective.",
    "agentguard.autonomy.changes": "Changes of how far a tool or a workflow may go by itself.",
    "agentguard.artifacts": "Look-ups of cached artifacts.",
}
HISTOGRAMS: dict[str, tuple[str, str, tuple[float, ...]]] = {
    "agentguard.run.cost_usd": ("", "US dollars that a run has spent when it ends.", _CENTS),
    "agentguard.run.duration": (
        "s",
        "How long a run was executed, without its waits for people.",
        _RUNS,
    ),
    "agentguard.tool.duration": ("s", "How long a guarded call took, its waits included.", _CALLS),
    "agentguard.approval.wait": ("s", "How long a call waited for people's answer.", _PEOPLE),
}

_BY_NAME = "OTEL_PYTHON_METER_PROVIDER"
_METER: Meter | None = None
_made: dict[str, Any] = {}
_making = threading.Lock()


def heard() -> bool:
    """Return whether anybody listens: whether a MeterProvider is set."""
    if _METER is not None:
        return True
    if "opentelemetry.metrics" not in sys.modules and _BY_NAME not in os.environ:
        return False  # nobody has set one; to find that out need not load it
    from opentelemetry.metrics import get_meter_provider

    return "Proxy" not in type(get_meter_provider()).__name__  # the API's own, which has no name


def run_ended(
    workflow: str, outcome: str, seconds: float | None = None, usd: Decimal | None = None
) -> None:
    """Count a part of a run that was left; *seconds* and *usd* of a run that has ended."""
    _add("agentguard.runs", 1, {WORKFLOW: workflow, "agentguard.run.outcome": outcome})
    if seconds is not None:
        _record("agentguard.run.duration", seconds, {WORKFLOW: workflow})
    if usd is not None:
        _record("agentguard.run.cost_usd", float(usd), {WORKFLOW: workflow})


def tool_ended(tool: str, outcome: str, effect: str, seconds: float) -> None:
    """Count a guarded call that has ended, however it did."""
    labels = {
        TOOL_NAME: tool, "agentguard.tool.outcome": outcome, "agentguard.tool.effect": effect,
    }  # fmt: skip
    _add("agentguard.tool_calls", 1, labels)
    _record("agentguard.tool.duration", seconds, labels)


def verified(verifier: str, verdict: str) -> None:
    """Count a verdict: `pass`, `fail` or `unavailable`."""
    _add(
        "agentguard.verifications", 1,
        {"agentguard.verifier.name": verifier, "agentguard.verifier.verdict": verdict},
    )  # fmt: skip


def escalated(workflow: str, reason: str) -> None:
    """Count that a run turned to people; *reason* is one of few words, never a sentence."""
    _add("agentguard.escalations", 1, {WORKFLOW: workflow, "agentguard.escalation.reason": reason})


def cost(workflow: str, kind: str, usd: Decimal) -> None:
    """Add what was spent on `model`, `tool` or `human`; an unknown price is not told at all."""
    _add("agentguard.cost_usd", float(usd), {WORKFLOW: workflow, "agentguard.cost.kind": kind})


def budget_exceeded(name: str) -> None:
    """Count that a budget had no room for a call."""
    _add("agentguard.budget.exceeded", 1, {"agentguard.budget.name": name})


def waited(tool: str, status: str, seconds: float) -> None:
    """Tell how long a call waited until people had answered, and what they said."""
    _record(
        "agentguard.approval.wait", seconds, {TOOL_NAME: tool, "agentguard.approval.status": status}
    )


def slo_outcome(slo: str, outcome: str, count: int = 1) -> None:
    """Count outcomes, `good` or `bad`, that were counted for a service level objective."""
    _add(
        "agentguard.slo.outcomes", count,
        {"agentguard.slo.name": slo, "agentguard.slo.outcome": outcome},
    )  # fmt: skip


def slo_known(slo: str) -> None:
    """Let both series of an objective exist: one that begins at 1 seems never to have grown."""
    slo_outcome(slo, "good", 0)
    slo_outcome(slo, "bad", 0)


def autonomy_changed(what: str, before: str, after: str) -> None:
    """Count a change of how far *what*, a tool's or an objective's name, may go by itself."""
    _add(
        "agentguard.autonomy.changes", 1,
        {
            "agentguard.autonomy.name": what, "agentguard.autonomy.from": before,
            "agentguard.autonomy.to": after,
        },
    )  # fmt: skip


def artifact(kind: str, result: str) -> None:
    """Count a look-up of a cached artifact: `hit` or `miss`."""
    _add(
        "agentguard.artifacts", 1,
        {"agentguard.artifact.kind": kind, "agentguard.artifact.result": result},
    )  # fmt: skip


def _add(name: str, amount: float, labels: Mapping[str, str]) -> None:
    try:
        (_made.get(name) or _make(name)).add(amount, labels)
    except Exception as error:  # noqa: BLE001 - no call fails because nobody can count it
        broken(name, error)


def _record(name: str, amount: float, labels: Mapping[str, str]) -> None:
    try:
        (_made.get(name) or _make(name)).record(amount, labels)
    except Exception as error:  # noqa: BLE001 - no call fails because nobody can measure it
        broken(name, error)


def _make(name: str) -> Any:
    """Make an instrument once; before a provider is set, the API's own stands in for it."""
    with _making:
        if name not in _made:
            _made[name] = _new(name)
        return _made[name]


def _new(name: str) -> Any:
    from opentelemetry.metrics import get_meter  # who never ends a call does not load it

    meter = _METER or get_meter(SCOPE, VERSION)
    if name in COUNTERS:
        return meter.create_counter(name, description=COUNTERS[name])
    unit, description, buckets = HISTOGRAMS[name]
    return meter.create_histogram(
        name, unit, description, explicit_bucket_boundaries_advisory=buckets
    )
