"""Writes service levels as the block that `agent_run.yaml` holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._keys_slos import NOT_DEMOTED
from ..slos import Demotion, span
from ._writing import number, yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..slos import Burn, Slo, Window


def block(slos: Sequence[Slo]) -> str:
    """Return *slos* as a configuration that says the same."""
    return yaml({"agent_run": {"slos": {slo.name: keys_of(slo) for slo in slos}}})


def keys_of(slo: Slo) -> dict[str, Any]:
    """Return what stands under the name of *slo*; what is as by default is left out."""
    subject = {"workflow": slo.workflow} if slo.workflow else {"tool": slo.tool}
    said: dict[str, Any] = {**subject, "sli": slo.sli, "target": slo.target}
    if slo.window.last:
        said["last"] = slo.window.last
    else:
        said["window"] = slo.window.text
    said["min"] = slo.min_count
    optional = {
        "at_most": at_most(slo),
        "abandoned": None if slo.abandoned is None else span(slo.abandoned),
        "counts": dict(slo.counts),
        "burn": [_burn(rule) for rule in slo.burn],
        "demote": _demote(slo),
    }
    return {**said, **{key: value for key, value in optional.items() if value}}


def at_most(slo: Slo) -> str | None:
    """Return what a good run takes at most, as a configuration says it."""
    if slo.at_most is None:
        return None
    return number(slo.at_most) + ("s" if slo.sli == "latency" else "")


def _part(window: Window) -> str | int:
    return window.last or window.text


def _burn(rule: Burn) -> dict[str, Any]:
    severity = {} if rule.severity == "page" else {"severity": rule.severity}
    return {
        "long": _part(rule.long),
        "short": _part(rule.short),
        "factor": rule.factor,
        **severity,
    }


def _demote(slo: Slo) -> dict[str, Any] | str | None:
    demotion = slo.demote
    by_default = None if slo.sli in NOT_DEMOTED else Demotion()
    if demotion == by_default:
        return None
    if demotion is None:
        return "off"
    restore = {
        "after": None if demotion.restore_after is None else span(demotion.restore_after),
        "good": demotion.restore_good,
    }
    said = {key: value for key, value in restore.items() if value is not None}
    stages = {"burning": demotion.burning or "off", "exhausted": demotion.exhausted or "off"}
    return {**stages, **({"restore": said} if said else {})}
