"""Service levels as OpenSLO v1 documents, and back.

What OpenSLO has no word for stands in annotations: least number, counting, demotion, short windows,
windows of outcomes. A reader that does not know them sees a plain service level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigurationError
from ..slos import burns, span
from ._exported import Exported, nothing_left
from ._openslo_in import read
from ._openslo_words import (
    ABANDONED,
    ALERTS,
    BURN,
    COUNTS,
    DEMOTE,
    KIND,
    LAST,
    MIN,
    SHORT,
    SOURCE,
    VERSION,
    burn_text,
    demote_text,
    slug,
)
from ._writing import yaml
from .block import at_most

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..slos import Burn, Slo

__all__ = ["read", "written"]

_LONGEST: Final = 63
_STANDS_IN: Final = "28d"


def written(slos: Sequence[Slo]) -> Exported:
    """Return one document of the kind SLO for each service level that OpenSLO can carry."""
    refused = {slo.name: found for slo in slos if (found := next(_problems(slo), None))}
    left_out = tuple(f"the service level {name!r} {why}" for name, why in refused.items())
    kept = [slo for slo in slos if slo.name not in refused]
    if not kept:
        raise nothing_left(left_out)
    _check_names(kept)
    return Exported("---\n".join(yaml(_document(slo)) for slo in kept), left_out)


def _problems(slo: Slo) -> Iterator[str]:
    if slo.target == 1:
        yield "has a target of 1, and OpenSLO has targets below 1; it is left out"
    sizes = [slo.window, *(w for rule in burns(slo) for w in (rule.long, rule.short))]
    odd = next((w for w in sizes if w.seconds and w.seconds % 60), None)
    if odd is not None:
        yield f"has a window of {odd.text}, and OpenSLO knows no seconds; it is left out"


def _check_names(slos: Sequence[Slo]) -> None:
    taken: dict[str, str] = {}
    for slo in slos:
        other = taken.setdefault(slug(slo.name), slo.name)
        if other != slo.name:
            raise ConfigurationError(
                f"the service levels {other!r} and {slo.name!r} have the same name in OpenSLO,"
                f" {slug(slo.name)}; rename one"
            )


def _document(slo: Slo) -> dict[str, Any]:
    alerts = [] if slo.window.last else [_policy(slo, rule) for rule in burns(slo)]
    return {
        "apiVersion": VERSION,
        "kind": "SLO",
        "metadata": {
            "name": slug(slo.name),
            "displayName": slo.name,
            "annotations": _annotations(slo),
        },
        "spec": {
            "description": _description(slo),
            "service": slug(slo.subject)[:_LONGEST].strip("-") or "agents",
            "indicator": _indicator(slo),
            "timeWindow": [{"duration": _duration(slo), "isRolling": True}],
            "budgetingMethod": "Occurrences",
            "objectives": [{"displayName": f"{slo.sli} of {slo.subject}", "target": slo.target}],
            **({ALERTS: alerts} if alerts else {}),
        },
    }


def _duration(slo: Slo) -> str:
    return _STANDS_IN if slo.window.last else slo.window.text


def _annotations(slo: Slo) -> dict[str, str]:
    said = {
        MIN: str(slo.min_count),
        LAST: str(slo.window.last or ""),
        COUNTS: " ".join(f"{outcome}={how}" for outcome, how in slo.counts.items()),
        ABANDONED: "" if slo.abandoned is None else span(slo.abandoned),
        DEMOTE: demote_text(slo.demote),
        BURN: " ".join(map(burn_text, slo.burn)) if slo.window.last else "",
    }
    return {key: text for key, text in said.items() if text}


def _description(slo: Slo) -> str:
    whose = f"workflow {slo.workflow}" if slo.workflow else f"tool {slo.tool}"
    over = f"over its {slo.window.text} outcomes" if slo.window.last else f"over {slo.window.text}"
    note = f"; OpenSLO needs a time, {_STANDS_IN} stands in" if slo.window.last else ""
    return f"{slo.sli} of the {whose} {over}{note}, counted by agentguard from its own record"


def _indicator(slo: Slo) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{slug(slo.name)[:50].strip('-')}-{slo.sli}"},
        "spec": {
            "ratioMetric": {
                "counter": True,
                "good": _source(slo, "good"),
                "total": _source(slo, "valid"),
            }
        },
    }


def _source(slo: Slo, outcome: str) -> dict[str, Any]:
    limit = at_most(slo)
    spec = {
        "sli": slo.sli,
        **({"workflow": slo.workflow} if slo.workflow else {"tool": slo.tool}),
        **({"at_most": limit} if limit else {}),
        "outcome": outcome,
    }
    return {"metricSource": {"type": SOURCE, "spec": spec}}


def _policy(slo: Slo, rule: Burn) -> dict[str, Any]:
    name = f"{slug(slo.name)[:40].strip('-')}-{rule.severity}-{rule.long.text}"
    return {
        "apiVersion": VERSION,
        KIND: "AlertPolicy",
        "metadata": {"name": name},
        "spec": {
            "description": f"The error budget burns {rule.text}",
            "alertWhenBreaching": True,
            "alertWhenResolved": False,
            "alertWhenNoData": False,
            "conditions": [
                {
                    KIND: "AlertCondition",
                    "metadata": {"name": name, "annotations": {SHORT: rule.short.text}},
                    "spec": {
                        "severity": rule.severity,
                        "condition": {
                            KIND: "burnrate",
                            "op": "gt",
                            "threshold": rule.factor,
                            "lookbackWindow": rule.long.text,
                            "alertAfter": "0m",
                        },
                    },
                }
            ],
            "notificationTargets": [],
        },
    }
