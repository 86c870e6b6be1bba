"""OpenSLO v1, out and in: what it can carry comes back as it was, the rest is refused by name."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from agentguard.errors import ConfigurationError
from agentguard.slo_formats import export
from agentguard.slo_formats._openslo_words import slug
from agentguard.slo_formats.openslo import read
from agentguard.slos import Burn, Demotion, Slo, Window, burns
from tests.slos import reading
from tests.slos.drawn import slos

MONTH = Window(seconds=28 * 86_400)
REFUNDS = Slo(
    "refunds", "success", workflow="support", target=Decimal("0.95"), window=MONTH,
    demote=Demotion(),
)  # fmt: skip
FOREIGN = """\
apiVersion: openslo/v1
kind: Service
metadata:
  name: support
spec:
  description: People who ask
---
# the indicator, in a document of its own
apiVersion: openslo/v1
kind: SLI
metadata:
  name: refund-success
spec:
  ratioMetric:
    counter: true
    good:
      metricSource:
        type: agentguard
        spec: {sli: success, workflow: support, outcome: good}
    total:
      metricSource:
        type: agentguard
        spec: {sli: success, workflow: support, outcome: valid}
---
apiVersion: openslo/v1
kind: AlertCondition
metadata:
  name: fast-burn
spec:
  severity: page
  condition: {kind: burnrate, op: gt, threshold: 6, lookbackWindow: 6h, alertAfter: 0m}
---
apiVersion: openslo/v1
kind: AlertPolicy
metadata:
  name: wake-us
spec:
  alertWhenBreaching: true
  conditions:
    - conditionRef: fast-burn
  notificationTargets:
    - targetRef: on-call
---
apiVersion: openslo/v1
kind: SLO
metadata:
  name: refunds
  labels: {team: [billing]}
  annotations: {example.com/dashboard: none}
spec:
  description: Refunds come through
  service: support
  indicatorRef: refund-success
  timeWindow:
    - duration: 4w
      isRolling: true
  budgetingMethod: Occurrences
  objectives:
    - displayName: mostly
      targetPercent: 99.5
  alertPolicies:
    - alertPolicyRef: wake-us
...
"""


def documents(*levels: Slo) -> list[dict[str, Any]]:
    """Export and read as any other program would."""
    return reading.documents(export(levels, "openslo").text)


def can_be_carried(slo: Slo) -> bool:
    """OpenSLO knows windows from a minute on."""
    sizes = [slo.window, *(w for rule in burns(slo) for w in (rule.long, rule.short))]
    return not any(size.seconds and size.seconds % 60 for size in sizes)


@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])  # to shrink takes minutes
@given(st.lists(slos(), min_size=1, max_size=3, unique_by=lambda slo: slug(slo.name)))
def test_what_is_exported_is_imported_as_it_was(levels: list[Slo]) -> None:
    """Whatever OpenSLO and its annotations carry comes back equal, several in one file."""
    assume(all(map(can_be_carried, levels)))
    exported = export(levels, "openslo")
    assert exported.left_out == ()
    imported = read(exported.text)
    assert imported.slos == tuple(levels)
    assert imported.passed_over == ()


def test_a_document_is_what_the_specification_asks_for() -> None:
    """Kind, version, one indicator, one rolling window, Occurrences, one objective, policies."""
    (document,) = documents(REFUNDS)
    assert (document["apiVersion"], document["kind"]) == ("openslo/v1", "SLO")
    assert document["metadata"]["annotations"] == {
        "agentguard/min": "10", "agentguard/demote": "burning=approve exhausted=draft",
    }  # fmt: skip
    spec = document["spec"]
    assert spec["budgetingMethod"] == "Occurrences"
    assert spec["timeWindow"] == [{"duration": "28d", "isRolling": True}]
    assert [objective["target"] for objective in spec["objectives"]] == [0.95]
    ratio = spec["indicator"]["spec"]["ratioMetric"]
    assert ratio["counter"] is True
    assert ratio["good"]["metricSource"] == {
        "type": "agentguard", "spec": {"sli": "success", "workflow": "support", "outcome": "good"},
    }  # fmt: skip
    assert ratio["total"]["metricSource"]["spec"]["outcome"] == "valid"
    conditions = [policy["spec"]["conditions"][0]["spec"] for policy in spec["alertPolicies"]]
    assert [c["severity"] for c in conditions] == ["page", "page", "ticket", "ticket"]
    assert conditions[0]["condition"] == {
        "kind": "burnrate", "op": "gt", "threshold": 13.44, "lookbackWindow": "1h",
        "alertAfter": "0m",
    }  # fmt: skip


@settings(max_examples=30)
@given(slos())
def test_names_are_those_that_openslo_allows(slo: Slo) -> None:
    """Every name of an object is small letters, digits and dashes, at most 63."""
    assume(can_be_carried(slo))
    (document,) = documents(slo)
    names = [name for key, name in walked(document) if key in ("name", "service")]
    for name in names:
        assert len(name) <= 63
        assert all("a" <= c <= "z" or c.isdecimal() or c == "-" for c in name), name
        assert name.strip("-") == name != ""


def walked(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Return the texts of a document with their keys."""
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in walked(item, name)]
    if isinstance(value, list):
        return [found for item in value for found in walked(item, key)]
    return [(key, value)] if isinstance(value, str) else []


def test_documents_of_others_are_read() -> None:
    """References, targetPercent, weeks and a missing short window are understood."""
    imported = read(FOREIGN)
    assert imported.slos == (
        Slo(
            "refunds", "success", workflow="support", target=Decimal("0.995"), window=MONTH,
            burn=(Burn(Window(seconds=6 * 3600), Window(seconds=1800), Decimal(6)),),
            demote=Demotion(),
        ),
    )  # fmt: skip


def test_what_means_nothing_here_is_said() -> None:
    """Services, labels, foreign annotations and notification targets are named."""
    assert read(FOREIGN).passed_over == (
        "the Service support in line 1 means nothing here",
        "the SLO refunds: metadata labels is not kept",
        "the SLO refunds: metadata example.com/dashboard is not kept",
        "the SLO refunds: notificationTargets are not kept, agentguard notifies nobody",
    )


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("budgetingMethod: Occurrences", "budgetingMethod: Timeslices",
         "the SLO refunds: spec.budgetingMethod must be Occurrences: agentguard counts outcomes"),
        ("targetPercent: 99.5", "targetPercent: 100.5", "slos.refunds.target must be above 0"),
        ("      targetPercent: 99.5", "      targetPercent: 99.5\n      op: lt",
         "the SLO refunds: spec.objectives.0.op cannot be carried over; known here: displayName"),
        ("      targetPercent: 99.5", "      target: 0.9\n      targetPercent: 90",
         "spec.objectives.0 needs either target or targetPercent"),
        ("    - displayName: mostly", "    - target: 0.5\n    - displayName: mostly",
         "spec.objectives has 2 items, and one can be carried over; make one SLO of each"),
        ("isRolling: true", "isRolling: false",
         "isRolling must be true: a window of the calendar is not counted"),
        ("duration: 4w", "duration: 1M", "is '1M'; write minutes, hours, days or weeks"),
        ("indicatorRef: refund-success", "indicatorRef: other",
         "spec.indicatorRef names 'other', and no SLI of this file is called so"),
        ("type: agentguard", "type: Prometheus",
         "type must be agentguard: only agentguard's own record can be counted"),
        ("outcome: good}", "outcome: bad}", "outcome must be good: good is what was good"),
        ("workflow: support, outcome: valid", "workflow: other, outcome: valid",
         "looks at something else than good does; make them the same"),
        ("  ratioMetric:", "  thresholdMetric: {}\n  ratioMetric:",
         "the SLI refund-success: spec.thresholdMetric cannot be carried over"),
        ("op: gt", "op: lte", "op must be gt: a rule is broken above its factor"),
        ("alertAfter: 0m", "alertAfter: 5m", "alertAfter must be 0m"),
        ("threshold: 6,", "threshold: 200,", "choose a factor below 200"),
        ("alertWhenBreaching: true", "alertWhenNoData: true", "must be false"),
        ("alertWhenBreaching: true", "alertWhenResolved: true", "must be false"),
        ("  service: support", "  service: support\n  composite: {}",
         "the SLO refunds: spec.composite cannot be carried over"),
        ("example.com/dashboard", "agentguard/window", "is not known; known: agentguard/abandoned"),
        ("kind: SLO", "kind: Monitor", "has the kind Monitor, which OpenSLO v1 does not have"),
        ("kind: Service", "kind: SLO", "the SLO support"),
        ("apiVersion: openslo/v1\nkind: Service", "apiVersion: openslo/v1alpha\nkind: Service",
         "apiVersion must be openslo/v1: other versions are not read"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_over_is_refused(old: str, new: str, sentence: str) -> None:
    """One sentence names file, line, document and field."""
    assert old in FOREIGN
    with pytest.raises(ConfigurationError) as refused:
        read(FOREIGN.replace(old, new, 1), "their.yaml")
    assert refused.value.message.startswith("their.yaml:")
    assert sentence in refused.value.message


def answer(text: str) -> tuple[Slo, ...] | str:
    """Return the service levels that are read, or the sentence that refuses them."""
    try:
        return read(text, "x.yaml").slos
    except ConfigurationError as error:
        return error.message


@settings(max_examples=150)
@given(
    st.integers(0, FOREIGN.count("\n") - 1),
    st.sampled_from(["", "-", "{}", "[]", "5", "true", "~", "[{}]", "text", "a: b", "2020-01-01"]),
    st.sampled_from(["whole line", "value"]),
)
def test_a_damaged_file_is_read_or_refused(line: int, scrap: str, place: str) -> None:
    """Whatever stands in a line instead, there is an answer or a sentence with a place."""
    lines: list[str] = [*FOREIGN.split("\n")]
    head = "" if place == "whole line" else lines[line].partition(":")[0] + ": "
    lines[line] = head + scrap
    told = answer("\n".join(lines))
    assert not isinstance(told, str) or told.startswith("x.yaml:")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "there is no document of the kind SLO"),
        ("---\n# nothing\n---\n", "there is no document of the kind SLO"),
        ("- a\n- b\n", "has no apiVersion"),
        ("kind: SLO\n", "document 1 has no apiVersion; add it, such as openslo/v1"),
        ("apiVersion: openslo/v1\nkind: SLO\n", "has no metadata"),
        ("apiVersion: openslo/v1\nkind: SLO\nmetadata: {name: 5}\n", "must be a text"),
        ("a: b\n---\nc: *d\n", "x.yaml:3: the alias *d is not allowed"),
    ],
)
def test_files_that_are_something_else_are_refused(text: str, sentence: str) -> None:
    """Nothing is guessed: an empty file, lists, other documents have their sentence."""
    with pytest.raises(ConfigurationError, match=r"x\.yaml:") as refused:
        read(text, "x.yaml")
    assert sentence in refused.value.message


def test_a_document_that_stands_twice_is_refused() -> None:
    """Two of one name cannot both be meant."""
    text = export([REFUNDS], "openslo").text
    with pytest.raises(ConfigurationError, match="the SLO refunds stands twice; keep one"):
        read(f"{text}---\n{text}")


@pytest.mark.parametrize(
    ("slo", "why"),
    [
        (Slo("never", "success", workflow="w", target=Decimal(1), window=MONTH),
         "has a target of 1, and OpenSLO has targets below 1; it is left out"),
        (Slo("odd", "success", workflow="w", target=Decimal("0.9"), window=Window(seconds=90)),
         "has a window of 90s, and OpenSLO knows no seconds; it is left out"),
    ],
)  # fmt: skip
def test_what_openslo_cannot_say_is_left_out_with_a_sentence(slo: Slo, why: str) -> None:
    """A target of 1 and windows of seconds are named, not bent; alone they are refused."""
    exported = export([REFUNDS, slo], "openslo")
    assert exported.left_out == (f"the service level {slo.name!r} {why}",)
    with pytest.raises(ConfigurationError, match="nothing to export"):
        export([slo], "openslo")


def test_names_that_openslo_takes_for_one_are_refused() -> None:
    """`a_b` and `a-b` would be one object."""
    levels = [Slo(name, "success", workflow="w", target=Decimal("0.9"), window=MONTH)
              for name in ("a_b", "a-b")]  # fmt: skip
    with pytest.raises(ConfigurationError, match="have the same name in OpenSLO, a-b; rename one"):
        export(levels, "openslo")


def test_a_window_of_outcomes_says_that_its_time_stands_in() -> None:
    """OpenSLO needs a time; the annotation carries the number and the description says so."""
    (document,) = documents(Slo("few", "success", workflow="w", target=Decimal("0.9"),
                                window=Window(last=50)))  # fmt: skip
    assert document["metadata"]["annotations"]["agentguard/last"] == "50"
    assert "OpenSLO needs a time, 28d stands in" in document["spec"]["description"]
    assert "alertPolicies" not in document["spec"]


def test_other_formats_and_nothing_are_refused() -> None:
    """An unknown format and a file without service levels have their sentence."""
    with pytest.raises(ConfigurationError, match="the format 'nobl9' is not known; known: openslo"):
        export([REFUNDS], "nobl9")
    with pytest.raises(ConfigurationError, match="there are no service levels"):
        export([], "openslo")
