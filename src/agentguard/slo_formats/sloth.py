"""Service levels as input of sloth, which makes rules of Prometheus by its own windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ._exported import Exported, nothing_left
from ._openslo_words import slug
from ._writing import yaml
from .prometheus import labels, not_by_time, outcomes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..slos import Slo

_PERIODS: Final = ("28d", "30d")
_WINDOW: Final = "{{.window}}"


def written(slos: Sequence[Slo]) -> Exported:
    """Return one document for each workflow or tool and period."""
    left_out = {slo.name: why for slo in slos if (why := next(_problems(slo), None))}
    kept = [slo for slo in slos if slo.name not in left_out]
    if not kept:
        raise nothing_left([*left_out.values()])
    services: dict[tuple[str, str], list[Slo]] = {}
    for slo in kept:
        services.setdefault((slo.subject, slo.window.text), []).append(slo)
    texts = [_document(period, of) for (_, period), of in services.items()]
    notes = tuple(note for slo in kept for note in _notes(slo))
    return Exported("---\n".join(texts), (*left_out.values(), *notes))


def _problems(slo: Slo) -> Iterator[str]:
    if slo.window.last:
        yield not_by_time(slo)
    elif slo.window.text not in _PERIODS:
        yield (
            f"the service level {slo.name!r} is left out: sloth has windows for 28d and 30d, not for"
            f" {slo.window.text}; use --format prometheus"
        )
    elif slo.target == 1:
        yield (
            f"the service level {slo.name!r} is left out: sloth divides by the budget, and a target"
            " of 1 has none; use --format prometheus"
        )


def _notes(slo: Slo) -> Iterator[str]:
    if slo.burn:
        yield (
            f"the service level {slo.name!r} goes without its burn rules: sloth has its own, and"
            " no least number of outcomes; --format prometheus keeps them"
        )


def _document(period: str, slos: Sequence[Slo]) -> str:
    head = f"# For sloth generate --default-slo-period={period}\n"
    return head + yaml(
        {
            "version": "prometheus/v1",
            "service": slug(slos[0].subject) or "agents",
            "labels": {"made_by": "agentguard"},
            "slos": [_slo(slo) for slo in slos],
        }
    )


def _slo(slo: Slo) -> dict[str, Any]:
    return {
        "name": slo.name,
        "objective": slo.target * 100,
        "description": f"{slo.sli} of {slo.subject}, counted by agentguard from its own record",
        "labels": labels(slo),
        "sli": {
            "events": {
                "error_query": outcomes(slo, "bad", _WINDOW, "rate"),
                "total_query": outcomes(slo, None, _WINDOW, "rate"),
            }
        },
        "alerting": {
            "name": "AgentguardSloBurning",
            "annotations": {"summary": f"The error budget of {slo.name} burns too fast"},
            "page_alert": {"labels": {"severity": "page"}},
            "ticket_alert": {"labels": {"severity": "ticket"}},
        },
    }
