"""Reads OpenSLO v1: what cannot be carried over is refused, never dropped in silence."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from .. import config
from ..errors import ConfigurationError
from ..slos import burns
from ._openslo_words import (
    ABANDONED,
    ALERTS,
    BURN,
    COUNTS,
    DEMOTE,
    LAST,
    MIN,
    NAMED,
    SHORT,
    SOURCE,
    VERSION,
    burn_read,
    slug,
)
from ._parts import Part, documents
from ._writing import yaml
from .block import keys_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..slos import Slo

_READ: Final = ("SLO", "SLI", "AlertPolicy", "AlertCondition")
_PASSED_OVER: Final = ("Service", "DataSource", "AlertNotificationTarget")
_OURS: Final = "agentguard/"
_TIME: Final = re.compile(r"([1-9][0-9]{0,5})([mhdw])")
_UNITS: Final = {"m": 1, "h": 60, "d": 1440, "w": 10_080}
_SHORTER: Final = 12  # a short window is a twelfth of the long one, as in the SRE workbook
_TOLD: Final = {"alertWhenBreaching": True, "alertWhenResolved": False, "alertWhenNoData": False}
_LINE: Final = re.compile(r"^[^\n]*?:[0-9]+: ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file of OpenSLO documents says.

    Attributes:
        slos: the service levels.
        passed_over: a sentence for each thing that means nothing here.
    """

    slos: tuple[Slo, ...]
    passed_over: tuple[str, ...]


def read(text: str, file: str = "openslo.yaml") -> Imported:
    """Read the OpenSLO documents in *text*; errors call it *file*.

    Raises:
        ConfigurationError: naming line, document and field of the first thing that cannot be
            carried over.
    """
    shelf = _shelf(documents(text, file))
    levels = shelf["SLO"]
    if not levels:
        raise ConfigurationError(f"{file}:1: there is no document of the kind SLO; nothing is read")
    slos = [_slo(part, shelf) for part in levels.values()]
    names = [slo.name for slo in slos]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"{file}:1: two documents are called {twice}; rename one")
    passed = [f"{part.document} in line {part.node.line} means nothing here"
              for kind in _PASSED_OVER for part in shelf[kind].values()]  # fmt: skip
    passed += [said for part in levels.values() for said in _unread(part, shelf)]
    return Imported(tuple(slos), tuple(passed))


_Shelf = dict[str, dict[str, Part]]


def _shelf(parts: Sequence[Part]) -> _Shelf:
    """Sort documents by kind and name."""
    shelf: _Shelf = {kind: {} for kind in (*_READ, *_PASSED_OVER)}
    for part in parts:
        part.need("apiVersion", VERSION).must_be(VERSION, "other versions are not read")
        kind = part.need("kind", "SLO").text()
        if kind not in shelf:
            part.refuse(f"has the kind {kind}, which OpenSLO v1 does not have")
        name = part.need("metadata", "name: refunds").need("name", "refunds").text()
        named = replace(part, document=f"the {kind} {name}")
        if name in shelf[kind]:
            named.refuse("stands twice; keep one")
        shelf[kind][name] = named
    return shelf


def _unread(part: Part, shelf: _Shelf) -> list[str]:
    """Name what stands in an SLO that is read and means nothing here."""
    metadata = part.need("metadata", "name: refunds")
    notes = metadata.get("annotations")
    keys = ["labels"] if metadata.get("labels") else []
    keys += [key for key, _ in notes.fields() if not key.startswith(_OURS)] if notes else []
    policies = [_policy(item, shelf) for item in _alerts(part.need("spec", "objectives"))]
    targets = [policy.get("notificationTargets") for policy in policies]
    told = any(target is not None and target.items() for target in targets)
    return [f"{part.document}: metadata {key} is not kept" for key in keys] + (
        [f"{part.document}: notificationTargets are not kept, agentguard notifies nobody"]
        if told
        else []
    )


def _slo(part: Part, shelf: _Shelf) -> Slo:
    part.only("apiVersion", "kind", "metadata", "spec")
    metadata = part.need("metadata", "name: refunds")
    metadata.only("name", "displayName", "labels", "annotations")
    spec = part.need("spec", "an indicator, objectives, a time window")
    spec.only("description", "service", "indicator", "indicatorRef", "timeWindow",
              "budgetingMethod", "objectives", ALERTS)  # fmt: skip
    method = spec.need("budgetingMethod", "Occurrences")
    method.must_be("Occurrences", "agentguard counts outcomes, not slices of time")
    notes = _notes(metadata)
    keys = {
        **_measured(_indicator(spec, shelf)),
        "target": _target(spec.need("objectives", "target: 0.95")),
        **_window(spec, notes),
        **_said(notes),
    }
    rules = [_burn(item, shelf) for item in _alerts(spec)]
    return _checked(part, _name(metadata), keys, rules)


def _checked(part: Part, name: str, keys: dict[str, Any], rules: list[dict[str, Any]]) -> Slo:
    """Let the configuration's own checks look at it; default rules are left to the default."""
    slo = _loaded(part, name, keys)
    if not rules:
        return slo
    defaults = keys_of(replace(slo, burn=burns(slo)))["burn"]
    return slo if rules == defaults else _loaded(part, name, {**keys, "burn": rules})


def _loaded(part: Part, name: str, keys: dict[str, Any]) -> Slo:
    try:
        return config.loads(yaml({"agent_run": {"slos": {name: keys}}})).slos[0]
    except ConfigurationError as error:
        part.refuse(f"cannot be a service level: {_LINE.sub('', error.message)}")


def _name(metadata: Part) -> str:
    """Return the name for people where it is the same name, written with other letters."""
    name = metadata.need("name", "refunds").text()
    shown = metadata.get("displayName")
    return shown.text() if shown is not None and slug(shown.text()) == name else name


def _notes(metadata: Part) -> Mapping[str, Part]:
    annotations = metadata.get("annotations")
    found = {} if annotations is None else dict(annotations.fields())
    for key, note in found.items():
        if key.startswith(_OURS) and key not in NAMED:
            note.refuse(f"is not known; known: {', '.join(sorted(NAMED))}")
    return found


def _said(notes: Mapping[str, Part]) -> dict[str, Any]:
    """Return what annotations say, as keys of the configuration."""
    said: dict[str, Any] = {}
    if MIN in notes:
        said["min"] = _whole(notes[MIN])
    if COUNTS in notes:
        said["counts"] = _pairs(notes[COUNTS])
    if ABANDONED in notes:
        said["abandoned"] = notes[ABANDONED].text()
    if BURN in notes:
        said["burn"] = [_burn_note(notes[BURN], text) for text in notes[BURN].text().split()]
    if DEMOTE in notes:
        said["demote"] = _demote(notes[DEMOTE])
    return said


def _whole(note: Part) -> int:
    text = note.text()
    if not re.fullmatch(r"[0-9]{1,9}", text):
        note.refuse('must be a whole number in quotes, such as "10"')
    return int(text)


def _pairs(note: Part) -> dict[str, str]:
    pairs = [text.partition("=") for text in note.text().split()]
    if any(not (key and value) for key, _, value in pairs):
        note.refuse("must be pairs with a sign between, such as escalated=ignore")
    return {key: value for key, _, value in pairs}


def _burn_note(note: Part, text: str) -> dict[str, Any]:
    rule = burn_read(text)
    if rule is None:
        note.refuse("must be rules such as 5x20/5:page")
    return {"long": rule.long.last, "short": rule.short.last, "factor": rule.factor,
            "severity": rule.severity}  # fmt: skip


def _demote(note: Part) -> dict[str, Any] | str:
    if note.text() == "off":
        return "off"
    pairs = _pairs(note)
    restore = {key: pairs.pop(key) for key in ("after", "good") if key in pairs}
    said: dict[str, Any] = {"burning": "off", "exhausted": "off", **pairs}
    if "good" in restore and restore["good"].isdecimal():
        restore = {**restore, "good": int(restore["good"])}  # type: ignore[dict-item] # keys
    return {**said, **({"restore": restore} if restore else {})}


def _window(spec: Part, notes: Mapping[str, Part]) -> dict[str, Any]:
    window = spec.need("timeWindow", "- {duration: 28d, isRolling: true}").only_item("keep one")
    window.only("duration", "isRolling")
    window.need("isRolling", "true").must_be(True, "a window of the calendar is not counted")
    period = _time(window.need("duration", "28d"))
    return {"last": _whole(notes[LAST])} if LAST in notes else {"window": period}


def _time(part: Part) -> str:
    """Return a duration with the units of a configuration."""
    match = _TIME.fullmatch(part.text())
    if match is None:
        part.refuse(f"is {part.text()!r}; write minutes, hours, days or weeks, such as 30d")
    number, unit = match.groups()
    return f"{int(number) * 7}d" if unit == "w" else f"{number}{unit}"


def _target(objectives: Part) -> Decimal:
    objective = objectives.only_item("make one SLO of each")
    objective.only("displayName", "target", "targetPercent")
    share, percent = objective.get("target"), objective.get("targetPercent")
    if (share is None) == (percent is None):
        objective.refuse("needs either target or targetPercent, one of the two")
    if share is not None:
        return _decimal(share)
    assert percent is not None  # noqa: S101 - one of the two, see above
    return _decimal(percent) / 100


def _decimal(part: Part) -> Decimal:
    value = part.node.value
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        part.refuse("must be a number without quotes, such as 0.95")
    return Decimal(value)


def _indicator(spec: Part, shelf: _Shelf) -> Part:
    found, named = spec.get("indicator"), spec.get("indicatorRef")
    if (found is None) == (named is None):
        spec.refuse("needs either indicator or indicatorRef, one of the two")
    indicator = found or _looked_up(named, shelf["SLI"], "SLI")
    inner = indicator.need("spec", "ratioMetric")
    inner.only("description", "ratioMetric")
    return inner.need("ratioMetric", "good and total")


def _looked_up(name: Part | None, among: Mapping[str, Part], kind: str) -> Part:
    assert name is not None  # noqa: S101 - who calls has looked
    found = among.get(name.text())
    if found is None:
        name.refuse(f"names {name.text()!r}, and no {kind} of this file is called so")
    return found


def _measured(metric: Part) -> dict[str, Any]:
    metric.only("counter", "good", "total")
    good, total = (_source(metric.need(key, "a metricSource")) for key in ("good", "total"))
    keys = {key: part.text() for key, part in good.fields() if key != "outcome"}
    same = {key: part.text() for key, part in total.fields() if key != "outcome"}
    if keys != same:
        total.refuse("looks at something else than good does; make them the same")
    good.need("outcome", "good").must_be("good", "good is what was good")
    total.need("outcome", "valid").must_be("valid", "total is all that counts")
    return {**keys}


def _source(part: Part) -> Part:
    part.only("metricSource")
    source = part.need("metricSource", "type: agentguard")
    source.only("type", "spec")
    why = "only agentguard's own record can be counted; name its sli and workflow or tool"
    source.need("type", SOURCE).must_be(SOURCE, why)
    spec = source.need("spec", "sli: success")
    spec.only("sli", "workflow", "tool", "at_most", "outcome")
    return spec


def _alerts(spec: Part) -> list[Part]:
    alerts = spec.get(ALERTS)
    return [] if alerts is None else alerts.items()


def _policy(item: Part, shelf: _Shelf) -> Part:
    named = item.get("alertPolicyRef")
    policy = item if named is None else _looked_up(named, shelf["AlertPolicy"], "AlertPolicy")
    return policy.need("spec", "conditions")


def _burn(item: Part, shelf: _Shelf) -> dict[str, Any]:
    spec = _policy(item, shelf)
    spec.only("description", "alertWhenBreaching", "alertWhenResolved", "alertWhenNoData",
              "conditions", "notificationTargets")  # fmt: skip
    for key, is_so in _TOLD.items():
        if said := spec.get(key):
            said.must_be(is_so, "a rule is told of when it is broken")
    conditions = spec.need("conditions", "a burnrate").only_item("make a policy of each")
    named = conditions.get("conditionRef")
    if named is not None:
        conditions = _looked_up(named, shelf["AlertCondition"], "AlertCondition")
    return _rule(conditions)


def _rule(part: Part) -> dict[str, Any]:
    spec = part.need("spec", "a severity and a condition")
    spec.only("description", "severity", "condition")
    condition = spec.need("condition", "kind: burnrate")
    condition.only("kind", "op", "threshold", "lookbackWindow", "alertAfter")
    if kind := condition.get("kind"):
        kind.must_be("burnrate", "no other kind is known")
    condition.need("op", "gt").must_be("gt", "a rule is broken above its factor")
    if after := condition.get("alertAfter"):
        after.must_be("0m", "a rule has a short window instead of a wait")
    long = _time(condition.need("lookbackWindow", "1h"))
    severity = spec.need("severity", "page").text()
    rule = {"long": long, "short": _short(part, long),
            "factor": _decimal(condition.need("threshold", "14.4"))}  # fmt: skip
    return rule if severity == "page" else {**rule, "severity": severity}


def _short(part: Part, long: str) -> str:
    """Return the short window that is annotated, or else a twelfth of the long one."""
    metadata = part.get("metadata")
    notes = None if metadata is None else metadata.get("annotations")
    said = None if notes is None else notes.get(SHORT)
    if said is not None:
        return _time(said)
    minutes = int(long[:-1]) * _UNITS[long[-1]]
    return f"{max(1, minutes // _SHORTER)}m"
