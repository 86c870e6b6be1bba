"""The specification of `slos:` in agent_run.yaml: what loads, what is refused and in which words."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import given

from agentguard.config import json_schema, loads
from agentguard.errors import ConfigurationError
from agentguard.slo_formats.block import block
from agentguard.slos import Burn, Demotion, Slo, Window
from tests.slos import reading
from tests.slos.drawn import slos

FULL = """\
agent_run:
  slos:
    refunds: {workflow: support, target: 0.95, window: 28d}
    refund_right: {tool: refund, target: 1.0, last: 50, min: 20, counts: {in_doubt: ignore},
      burn: [{long: 20, short: 5, factor: 4, severity: ticket}], demote: off}
    cheap: {workflow: support, sli: cost, at_most: "0.40", target: 0.9, last: 100}
    cheap_enough: {workflow: support, sli: cost, at_most: 1.50, target: 0.9, last: 100}
    fast: {workflow: support, sli: latency, at_most: 1.5m, target: 0.9, window: 7d,
      burn: [{long: 1h, short: 5m, factor: 2.5}],
      demote: {burning: propose, exhausted: off, restore: {after: 30m, good: 5}}}
    alone: {workflow: support, sli: escalation, target: 0.8, window: 30d}
"""


def under(keys: str) -> str:
    """Put keys under the name of one service level."""
    return f"agent_run:\n  slos:\n    a: {{{keys}}}\n"


def refusal(text: str) -> str:
    """Return what is said of a file that is refused, without its name."""
    with pytest.raises(ConfigurationError) as refused:
        loads(text)
    return refused.value.message.removeprefix("agent_run.yaml:")


def test_every_key_is_read() -> None:
    """Each service level of a file is a value with what its keys say, and defaults beside."""
    month, hundred = Window(seconds=28 * 86_400), Window(last=100)
    nine = Decimal("0.9")
    expected = (
        Slo("refunds", "success", workflow="support", target=Decimal("0.95"), window=month,
            demote=Demotion()),
        Slo("refund_right", "correctness", tool="refund", target=Decimal(1), window=Window(last=50),
            min_count=20, counts={"in_doubt": "ignore"},
            burn=(Burn(Window(last=20), Window(last=5), Decimal(4), "ticket"),)),
        Slo("cheap", "cost", workflow="support", target=nine, window=hundred,
            at_most=Decimal("0.40"), demote=Demotion()),
        Slo("cheap_enough", "cost", workflow="support", target=nine, window=hundred,
            at_most=Decimal("1.5"), demote=Demotion()),
        Slo("fast", "latency", workflow="support", target=nine, window=Window(seconds=604_800),
            at_most=Decimal(90),
            burn=(Burn(Window(seconds=3600), Window(seconds=300), Decimal("2.5")),),
            demote=Demotion("propose", None, 1800, 5)),
        Slo("alone", "escalation", workflow="support", target=Decimal("0.8"),
            window=Window(seconds=30 * 86_400)),
    )  # fmt: skip
    assert loads(FULL).slos == expected


def test_only_what_a_person_can_mend_demotes_by_itself() -> None:
    """More people make latency and escalation worse: these demote only where they are told to."""
    found = {slo.name: slo.demote for slo in loads(FULL).slos}
    assert found["refunds"] == Demotion("approve", "draft")
    assert found["alone"] is None
    assert loads(under("workflow: w, sli: latency, at_most: 5s, target: 0.9, last: 50,"
                       " demote: {}")).slos[0].demote == Demotion("approve", "draft")  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("target: 0.9, last: 50", "a needs either a workflow or a tool, one of the two"),
        ("workflow: w, tool: t, target: 0.9, last: 50", "a needs either a workflow or a tool"),
        ("workflow: w, sli: correctness, target: 0.9, last: 50", "has the sli correctness of a wor"),
        ("tool: t, sli: success, target: 0.9, last: 50", "has the sli success of a tool"),
        ("workflow: w, sli: speed, target: 0.9, last: 50", "a.sli must be 'success', 'correctness'"),
        ("workflow: w, last: 50", "a.target is missing; add it"),
        ("workflow: w, target: 0, last: 50", "a.target must be more than 0, such as 0.95"),
        ("workflow: w, target: 95, last: 50", "such as 0.95; 95 % is 0.95"),
        ('workflow: w, target: "0.9", last: 50', "a.target must be a number without quotes"),
        ("workflow: w, target: .nan, last: 50", "a.target must be more than 0"),
        ("workflow: w, target: 0.9", "a needs either window: with a time such as 28d or last:"),
        ("workflow: w, target: 0.9, last: 50, window: 1d", "a needs either window: with a time"),
        ("workflow: w, target: 0.9, window: 1 day", "a.window must be 90s, 30m, 24h or 7d"),
        ("workflow: w, target: 0.9, window: 367d", "has the window 367d; write at most 366d"),
        ("workflow: w, target: 0.9, last: 9", "has min: 10; write at least 1 and at most the"),
        ("workflow: w, sli: cost, target: 0.9, last: 50", "has no at_most with the sli cost"),
        ("workflow: w, target: 0.9, last: 50, at_most: 1", "an at_most with the sli success; remove"),
        ("workflow: w, sli: cost, target: 0.9, last: 50, at_most: 5m", "for the sli cost write US"),
        ("workflow: w, sli: latency, target: 0.9, last: 50, at_most: 5", "at_most: 5; for the sli "),
        ("workflow: w, sli: cost, target: 0.9, last: 50, at_most: much", "must be US dollars such"),
        ("workflow: w, target: 0.9, last: 50, counts: {ok: bad}", "counts 'ok', which is no outcom"),
        ("workflow: w, target: 0.9, last: 50, counts: {failure: no}", "must be 'good', 'bad' or"),
        ("workflow: w, target: 0.9, last: 50, counts: {pending: bad}", "which is no end"),
        ("tool: t, target: 0.9, last: 50, counts: {rejected: bad}", "such a call does not start"),
        ("workflow: w, target: 0.9, last: 50, demote: of", "a.demote must be off, or hold keys"),
        ("workflow: w, target: 0.9, last: 50, demote: {burning: auto}", "demote.burning must be"),
        ("workflow: w, target: 0.9, last: 50, demote: {restore: {gud: 1}}", "gud is not a known key"),
        ("workflow: w, taget: 0.9, last: 50", "a.taget is not a known key; did you mean 'target'?"),
        ("workflow: w, target: 0.9, window: 28d, burn: [{long: 1h, short: 5m, factor: 14.4}]",
         "burns 10 times as fast; choose a factor below 10"),
        ("workflow: w, target: 0.9, window: 1d, burn: [{long: 2d, short: 5m, factor: 2}]",
         "its long window 2d is longer than the window 1d; shorten it"),
        ("workflow: w, target: 0.9, last: 50, burn: [{long: 1h, short: 5m, factor: 2}]",
         "must be of the kind of the window, so many outcomes (last: 20)"),
        ("workflow: w, target: 0.9, last: 50, burn: [{long: soon, short: 5, factor: 2}]",
         "a.burn.0.long must be a time such as 1h, or so many outcomes such as 20"),
        ("workflow: w, target: 0.9, last: 50, burn: [{long: 20, short: 5}]",
         "a.burn.0.factor is missing; add it"),
    ],
)  # fmt: skip
def test_what_would_not_be_obeyed_is_refused(keys: str, sentence: str) -> None:
    """File, line, key and the mend, in one sentence."""
    told = refusal(under(keys))
    assert told.startswith("3: slos.a")
    assert sentence in told


@pytest.mark.parametrize("name", ["a b", "1st", "a.b", "größe", "-a", "a-", "a" * 64, '"a{}"'])
def test_names_that_metrics_cannot_carry_are_refused(name: str) -> None:
    """A name is letters, digits, - and _, so that labels, alerts and files can carry it."""
    text = f"agent_run:\n  slos:\n    {name}: {{workflow: w, target: 0.9, last: 50}}\n"
    told = refusal(text)
    assert told.startswith("3: slos.")
    assert "1 to 63 letters, digits, - and _, the first a letter" in told


def test_a_tool_that_is_not_bound_is_told() -> None:
    """A service level of a tool that nobody gave is a problem with a place and a mend."""
    problems = loads(FULL).unknown_tools(["refunds"])
    assert [problem.message for problem in problems] == [
        (
            "agent_run.yaml:4: slos.refund_right.tool is the service level of a tool that is not"
            " among those bound; did you mean 'refunds'?"
        )
    ]
    assert loads(FULL).unknown_tools(["refund"]) == []


def test_service_levels_that_demote_are_part_of_the_version() -> None:
    """Files that rule the same have one version; what only watches rules nothing."""
    plain = loads("agent_run: {}").version
    watching = loads(under("workflow: w, target: 0.9, last: 50, demote: off"))
    ruling = [loads(under(f"workflow: w, target: {t}, last: 50")).version for t in ("0.9", "0.95")]
    assert watching.version == plain
    assert len({plain, *ruling}) == 3


def test_editors_know_the_keys() -> None:
    """What loads is valid by the JSON Schema, and each key is described in it."""
    jsonschema.validate(reading.document(FULL), json_schema())
    keys = json_schema()["$defs"]["SloKeys"]["properties"]
    assert set(keys) == {
        "workflow", "tool", "sli", "target", "window", "last", "min", "at_most", "counts", "burn",
        "demote", "abandoned",
    }  # fmt: skip
    assert all(key["description"] for key in keys.values())


@pytest.mark.parametrize(
    "keys",
    [
        "workflow: w, target: 1.5, last: 50",
        "workflow: w, target: 0, last: 50",
        "workflow: w, target: 0.9, window: 5",
        "workflow: w, target: 0.9, last: 50, demote: 'of'",
        "workflow: w, target: 0.9, last: 50, burn: [{long: 0, short: 5, factor: 2}]",
        "workflow: w, target: 0.9, last: 50, burn: [{long: 10, short: 5, factor: 0}]",
        "workflow: w, sli: cost, at_most: cheap, target: 0.9, last: 50",
        "workflow: w, target: 0.9, last: 50, more: 1",
    ],
)
def test_editors_mark_what_is_refused(keys: str) -> None:
    """What the loader refuses by itself is marked by editors as well."""
    read: Any = reading.document(under(keys))
    assert refusal(under(keys))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(read, json_schema())


@given(slos())
def test_what_is_written_is_read_as_it_was(slo: Slo) -> None:
    """The block that is written for a service level loads as the same service level."""
    assert loads(block([slo])).slos == (slo,)
