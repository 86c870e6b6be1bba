"""Service levels as rules of Prometheus: what it records, and when it alerts.

They count the outcomes that agentguard tells as the counter `agentguard.slo.outcomes`, and judge as
agentguard does: a burn in two windows, enough outcomes, and sureness that more is bad than may be.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from .._wilson import ONE_SIDED
from ..slos import Window, burns, windows
from ._exported import Exported, nothing_left
from ._writing import number, yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..slos import Burn, Slo

OUTCOMES: Final = "agentguard_slo_outcomes_total"
"""What exporters make of the counter `agentguard.slo.outcomes`."""
BURNING: Final = "AgentguardSloBurning"
EXHAUSTED: Final = "AgentguardSloExhausted"

_Z2: Final = ONE_SIDED * ONE_SIDED
_HEAD: Final = "# Rules for Prometheus, written by `agentguard slo export --format prometheus`.\n"


def written(slos: Sequence[Slo]) -> Exported:
    """Return one group of rules for each service level over time."""
    left_out = tuple(not_by_time(slo) for slo in slos if slo.window.last)
    kept = [slo for slo in slos if not slo.window.last]
    if not kept:
        raise nothing_left(left_out)
    return Exported(_HEAD + yaml({"groups": [_group(slo) for slo in kept]}), left_out)


def not_by_time(slo: Slo) -> str:
    """Return the sentence for a service level that PromQL has no words for."""
    return (
        f"the service level {slo.name!r} is left out: PromQL cannot count the last {slo.window.last}"
        " outcomes; give it a window of time, or watch it with `agentguard slo status`"
    )


def outcomes(slo: Slo, outcome: str | None, window: str, by: str = "increase") -> str:
    """Return the outcomes of *slo* within *window*: those of one kind, or all.

    Args:
        slo: the service level.
        outcome: good, bad, or None for both.
        window: as PromQL writes it, such as 5m.
        by: `increase` or `rate`.
    """
    which = f"agentguard_slo_name={json.dumps(slo.name)}"
    kind = "" if outcome is None else f",agentguard_slo_outcome={json.dumps(outcome)}"
    return f"sum({by}({OUTCOMES}{{{which}{kind}}}[{window}]))"


def labels(slo: Slo) -> dict[str, str]:
    """Return the labels that every rule of *slo* carries."""
    subject = {"workflow": slo.workflow} if slo.workflow else {"tool": slo.tool or ""}
    return {"slo": slo.name, "sli": slo.sli, **subject}


def _group(slo: Slo) -> dict[str, Any]:
    rules = [rule for window in _windows(slo) for rule in _recorded(slo, window)]
    alerts = [_burning(slo, rule) for rule in burns(slo)]
    return {
        "name": f"agentguard-slo-{slo.name}",
        "rules": [*rules, *_constants(slo), *_standing(slo), *alerts, _exhausted(slo)],
    }


def _windows(slo: Slo) -> list[Window]:
    """Return the windows, shortest first."""
    return sorted(windows(slo), key=lambda window: window.size)


def _record(slo: Slo, name: str, expression: str, **more: str) -> dict[str, Any]:
    return {"record": name, "expr": expression, "labels": {**labels(slo), **more}}


def _recorded(slo: Slo, window: Window) -> Iterator[dict[str, Any]]:
    """Yield number, share of bad ones and its lower bound; nothing where nothing came."""
    text = window.text
    yield _record(slo, f"slo:outcomes:increase{text}", outcomes(slo, None, text))
    # The series of bad outcomes may not be there yet: then none was bad.
    bad = f"({outcomes(slo, 'bad', text)} or vector(0))"
    share = f"{bad} / ({outcomes(slo, None, text)} > 0)"
    yield _record(slo, f"slo:sli_error:ratio_rate{text}", share)
    if any(window in (rule.long, slo.window) for rule in burns(slo)):
        yield _record(slo, f"slo:sli_error_low:ratio_rate{text}", _lower_bound(slo, text))


def _lower_bound(slo: Slo, window: str) -> str:
    """Return Wilson's lower bound of the share of bad outcomes."""
    which = _which(slo)
    p, n = f"slo:sli_error:ratio_rate{window}{which}", f"slo:outcomes:increase{window}{which}"
    z2, z, half, quarter = (
        number(round(value, 12)) for value in (_Z2, ONE_SIDED, _Z2 / 2, _Z2 / 4)
    )
    spread = f"{z} * sqrt({p} * (1 - {p}) / {n} + {quarter} / ({n} * {n}))"
    return f"clamp_min(\n  ({p} + {half} / {n} - {spread})\n  / (1 + {z2} / {n}), 0)"


def _which(slo: Slo) -> str:
    return f"{{slo={json.dumps(slo.name)}}}"


def _constants(slo: Slo) -> Iterator[dict[str, Any]]:
    days = slo.window.size / 86_400
    yield _record(slo, "slo:objective:ratio", f"vector({number(slo.target)})")
    yield _record(slo, "slo:error_budget:ratio", f"vector({number(slo.budget)})")
    yield _record(slo, "slo:time_period:days", f"vector({days:.10g})")


def _standing(slo: Slo) -> Iterator[dict[str, Any]]:
    """Yield what dashboards show: the share that is good, burn rates, what is left."""
    which, period = _which(slo), slo.window.text
    yield _record(slo, "slo:period_sli:ratio", f"1 - slo:sli_error:ratio_rate{period}{which}")
    for window in {rule.long.text: None for rule in burns(slo)}:
        yield _record(slo, "slo:burn_rate:ratio", _burn_rate(slo, window), window=window)
    yield _record(slo, "slo:period_burn_rate:ratio", _burn_rate(slo, period))
    left = f"1 - slo:period_burn_rate:ratio{which}"
    yield _record(slo, "slo:period_error_budget_remaining:ratio", left)


def _burn_rate(slo: Slo, window: str) -> str:
    share = f"slo:sli_error:ratio_rate{window}{_which(slo)}"
    if slo.budget:
        return f"{share} / {number(slo.budget)}"
    # Where nothing may be bad, none burns nothing and one burns without limit.
    return f"({share} > 0) / 0 or ({share} == 0)"


def _burning(slo: Slo, rule: Burn) -> dict[str, Any]:
    which, limit = _which(slo), number(rule.factor * slo.budget)
    shares = (f"slo:sli_error:ratio_rate{w.text}{which}" for w in (rule.long, rule.short))
    faster = [f"{share} > {limit}" for share in shares]
    return {
        "alert": BURNING,
        "expr": "\nand ".join([*faster, *_sure(slo, rule.long)]),
        "labels": _alert_labels(slo, rule.severity, rule.long),
        "annotations": {
            "summary": f"The error budget of {slo.name} burns {rule.text}",
            "description": _described(slo, rule.long.text),
        },
    }


def _alert_labels(slo: Slo, severity: str, window: Window) -> dict[str, str]:
    plain = {key: _literal(value) for key, value in labels(slo).items()}
    return {**plain, "severity": severity, "window": window.text}


def _described(slo: Slo, period: str) -> str:
    return (
        f"{{{{ $value | humanizePercentage }}}} of the outcomes of {_literal(slo.subject)} were"
        f" bad within {period}; {number(slo.budget * 100)} % may be."
    )


def _literal(text: str) -> str:
    """Return *text* for an alert, whose labels and annotations Prometheus fills in as templates."""
    return text.replace("{{", '{{"{{"}}')


def _sure(slo: Slo, window: Window) -> list[str]:
    """Return the guards against small numbers."""
    which = _which(slo)
    return [
        # increase() stretches what it sees to the window: a half more or less is the same number
        f"slo:outcomes:increase{window.text}{which} > {slo.min_count - 1}.5",
        f"slo:sli_error_low:ratio_rate{window.text}{which} > {number(slo.budget)}",
    ]


def _exhausted(slo: Slo) -> dict[str, Any]:
    which, period = _which(slo), slo.window.text
    spent = f"slo:sli_error:ratio_rate{period}{which} > {number(slo.budget)}"
    return {
        "alert": EXHAUSTED,
        "expr": "\nand ".join([spent, *_sure(slo, slo.window)]),
        "labels": _alert_labels(slo, "page", slo.window),
        "annotations": {
            "summary": f"The error budget of {slo.name} is used up",
            "description": _described(slo, period),
        },
    }
