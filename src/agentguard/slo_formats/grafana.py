"""A dashboard for Grafana: service levels, and the four families that operators ask for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from ._exported import Exported
from .prometheus import OUTCOMES, not_by_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from ..slos import Slo

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_OF: Final = '{slo=~"$slo"}'
_COUNTED: Final = '{agentguard_slo_name=~"$slo"}'
_SHARE: Final = "percentunit"
_SLI: Final = f"slo:period_sli:ratio{_OF}"
_LEFT: Final = f"slo:period_error_budget_remaining:ratio{_OF}"
_WORKFLOW: Final = "gen_ai_workflow_name"
_TOOL: Final = "gen_ai_tool_name"
_ENDED: Final = 'agentguard_runs_total{agentguard_run_outcome!="pending"}'  # not parts that wait
_SMALL: Final = 4  # panels in the first row
_WIDE, _HIGH, _NARROW, _LOW = 12, 8, 6, 5
_SCHEMA: Final = 38  # Grafana 10; newer ones read it and bring it up


def written(slos: Sequence[Slo]) -> Exported:
    """Return the dashboard; service levels of the last outcomes have their counts on it only."""
    notes = tuple(
        f"{not_by_time(slo)}; of the dashboard, its outcomes alone"
        for slo in slos
        if slo.window.last
    )
    return Exported(json.dumps(_dashboard(slos), indent=2) + "\n", notes)


def _dashboard(slos: Sequence[Slo]) -> dict[str, Any]:
    return {
        "title": "agentguard: service levels",
        "uid": "agentguard-slos",
        "description": "From the rules of `agentguard slo export --format prometheus`"
                       " and the metrics of agentguard.",
        "tags": ["agentguard", "slo"],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-7d", "to": "now"},
        "templating": {"list": [_datasource(), _choice(slos)]},
        "panels": [
            {**panel, "id": number, "gridPos": _place(number)}
            for number, panel in enumerate(_panels(slos), 1)
        ],
    }  # fmt: skip


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "label": "Prometheus",
    }


def _choice(slos: Sequence[Slo]) -> dict[str, Any]:
    return {
        "name": "slo", "type": "custom", "label": "Service level", "multi": True,
        "includeAll": True, "query": ",".join(slo.name for slo in slos),
        "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def _place(number: int) -> dict[str, int]:
    """Place small panels in the first row, then two large ones in each."""
    if number <= _SMALL:
        return {"x": (number - 1) * _NARROW, "y": 0, "w": _NARROW, "h": _LOW}
    row, column = divmod(number - _SMALL - 1, 2)
    return {"x": column * _WIDE, "y": _LOW + row * _HIGH, "w": _WIDE, "h": _HIGH}


def _panels(slos: Sequence[Slo]) -> list[dict[str, Any]]:
    return [*_now(max(slo.target for slo in slos)), *_levels(), *_families()]


def _now(target: Decimal) -> list[dict[str, Any]]:
    """Return the four small panels: how it stands."""
    firing = 'count by (slo, severity) (ALERTS{slo=~"$slo",alertstate="firing"})'
    return [
        _stat("SLI", _SHARE, _SLI, "{{slo}}", {"red": None, "green": target}),
        _stat("Error budget left", _SHARE, _LEFT, "{{slo}}",
              {"red": None, "orange": 0, "green": 0.25}),
        _stat("Burn rate over the window", "none", f"slo:period_burn_rate:ratio{_OF}", "{{slo}}",
              {"green": None, "orange": 1, "red": 2}),
        _stat("Alerts", "short", firing, "{{slo}} {{severity}}", {"green": None, "red": 1}),
    ]  # fmt: skip


def _levels() -> list[dict[str, Any]]:
    counted = f"{OUTCOMES}{_COUNTED}"
    return [
        _series("SLI", _SHARE, _SLI, "{{slo}}"),
        _series("Error budget left", _SHARE, _LEFT, "{{slo}}"),
        _series("Burn rate", "none", f"slo:burn_rate:ratio{_OF}", "{{slo}} {{window}}"),
        _counts("Outcomes in an hour", counted, ("agentguard_slo_name", "agentguard_slo_outcome"), "1h"),
    ]  # fmt: skip


def _families() -> list[dict[str, Any]]:
    """Return success, correctness, cost and escalation, and what agentguard did about them."""
    autonomy = ("agentguard_autonomy_name", "agentguard_autonomy_to")
    escalations = (_WORKFLOW, "agentguard_escalation_reason")
    verdicts = ("agentguard_verifier_name", "agentguard_verifier_verdict")
    return [
        _series("Task success, a day", _SHARE, _success(), f"{{{{{_WORKFLOW}}}}}"),
        _series("Tool-call correctness, a day", _SHARE, _correctness(), f"{{{{{_TOOL}}}}}"),
        _series("Cost per run, a day", "currencyUSD", _cost(), f"{{{{{_WORKFLOW}}}}}"),
        _counts("Escalations in a day", "agentguard_escalations_total", escalations),
        _counts("Autonomy changes in a day", "agentguard_autonomy_changes_total", autonomy),
        _counts("Verdicts in a day", "agentguard_verifications_total", verdicts),
    ]


def _counts(title: str, counter: str, by: Sequence[str], window: str = "1d") -> dict[str, Any]:
    expression = f"sum by ({', '.join(by)}) (increase({counter}[{window}]))"
    return _series(title, "short", expression, " ".join(f"{{{{{label}}}}}" for label in by))


def _success() -> str:
    return _share("agentguard_runs_total", _WORKFLOW, "agentguard_run_outcome",
                  "success", "success|failure|escalated|budget_exceeded")  # fmt: skip


def _correctness() -> str:
    return _share("agentguard_tool_calls_total", _TOOL, "agentguard_tool_outcome",
                  "ok", "ok|error")  # fmt: skip


def _share(counter: str, by: str, label: str, good: str, valid: str) -> str:
    """Return the share of the good among what counts; nothing where nothing came."""
    parts = [f'sum by ({by}) (increase({counter}{{{label}=~"{which}"}}[1d]))'
             for which in (good, valid)]  # fmt: skip
    return f"{parts[0]} / ({parts[1]} > 0)"


def _cost() -> str:
    usd, runs = (f"sum by ({_WORKFLOW}) (increase({counter}[1d]))"
                 for counter in ("agentguard_cost_usd_total", _ENDED))  # fmt: skip
    return f"{usd} / ({runs} > 0)"


def _stat(title: str, unit: str, expression: str, legend: str,
          colors: Mapping[str, Any]) -> dict[str, Any]:  # fmt: skip
    """Return a panel of one number, in the color of the highest step that it reaches."""
    steps = [{"color": color, "value": None if value is None else float(value)}
             for color, value in colors.items()]  # fmt: skip
    panel = _panel("stat", title, unit, expression, legend)
    panel["fieldConfig"]["defaults"]["thresholds"] = {"mode": "absolute", "steps": steps}
    return panel


def _series(title: str, unit: str, expression: str, legend: str) -> dict[str, Any]:
    return _panel("timeseries", title, unit, expression, legend)


def _panel(kind: str, title: str, unit: str, expression: str, legend: str) -> dict[str, Any]:
    is_now = kind == "stat"
    target = {
        "datasource": _SOURCE, "expr": expression, "legendFormat": legend, "refId": "A",
        "instant": is_now, "range": not is_now,
    }  # fmt: skip
    return {
        "title": title, "type": kind, "datasource": _SOURCE, "targets": [target],
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []}, "options": {},
    }  # fmt: skip
