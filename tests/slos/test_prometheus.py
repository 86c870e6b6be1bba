"""The rules for Prometheus, held against Prometheus' own checker and its unit tests."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from agentguard.errors import ConfigurationError
from agentguard.slo_formats import export
from agentguard.slos import Burn, Slo, Window, wilson
from tests.slos import reading
from tests.slos.drawn import slos_by_time
from tests.slos.promtool import asked, promtool

MONTH = Window(seconds=28 * 86_400)
REFUNDS = Slo("refunds", "success", workflow="support", target=Decimal("0.95"), window=MONTH)
NEVER = Slo("never", "correctness", tool='odd "name"', target=Decimal(1), window=MONTH)
FEW = Slo("few", "success", workflow="support", target=Decimal("0.8"), window=Window(last=50))
LABELS = {"slo": "refunds", "sli": "success", "workflow": "support"}


@pytest.fixture(autouse=True)
def _promtool() -> None:
    """Skip with a reason where there is no promtool."""
    promtool()


def rules_in(folder: Path, *slos: Slo) -> Path:
    """Write the rules of *slos* into a file."""
    file = folder / "rules.yml"
    file.write_text(export(slos, "prometheus").text, encoding="utf-8")
    return file


def series(outcome: str, values: str, slo: str = "refunds", instance: str = "a") -> dict[str, str]:
    """Return a counter as promtool's unit tests put it in: one value a minute."""
    labels = {"agentguard_slo_name": slo, "agentguard_slo_outcome": outcome, "instance": instance}
    shown = ",".join(f"{key}={json.dumps(value)}" for key, value in labels.items())
    return {"series": f"agentguard_slo_outcomes_total{{{shown}}}", "values": values}


def burning(window: str, severity: str, factor: str, short: str, share: str) -> dict[str, Any]:
    """Return an alert as it is expected."""
    return {
        "exp_labels": {**LABELS, "severity": severity, "window": window},
        "exp_annotations": {
            "summary": f"The error budget of refunds burns {factor}x in {window} and {short}",
            "description": f"{share} of the outcomes of support were bad within {window};"
            " 5 % may be.",
        },
    }


def hour_of_six(share: str) -> list[dict[str, Any]]:
    """Return the alerts when the budget burns faster than 5.6 and slower than 13.44 times."""
    return [
        burning("6h", "page", "5.6", "30m", share),
        burning("1d", "ticket", "2.8", "2h", share),
        burning("3d", "ticket", "1", "6h", share),
    ]


def told(folder: Path, inputs: list[dict[str, str]], at: str, expected: list[dict[str, Any]],
         alert: str = "AgentguardSloBurning", slo: Slo = REFUNDS) -> tuple[int, str]:  # fmt: skip
    """Run a unit test of the rules of *slo*; return promtool's code and words."""
    case: dict[str, Any] = {
        "interval": "1m",
        "input_series": inputs,
        "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": expected}],
    }
    return tried(folder, case, slo)


def agrees(*asked_for: Any) -> None:
    """Check that the rules alert as `told` was to expect it."""
    code, words = told(*asked_for)
    assert code == 0, words


def tried(folder: Path, case: dict[str, Any], slo: Slo) -> tuple[int, str]:
    """Run one case of promtool's unit tests."""
    rules = rules_in(folder, slo)
    test = {"rule_files": [rules.name], "evaluation_interval": "5m", "tests": [case]}
    file = folder / "test.yml"
    file.write_text(json.dumps(test), encoding="utf-8")
    run = asked("test", "rules", file)
    return run.returncode, run.stdout + run.stderr


def test_rules_are_accepted(tmp_path: Path) -> None:
    """Prometheus accepts every rule, also with a target of 1 and names that need quoting."""
    run = asked("check", "rules", rules_in(tmp_path, REFUNDS, NEVER))
    assert run.returncode == 0, run.stderr
    assert "SUCCESS" in run.stdout


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(slo=slos_by_time())
def test_rules_of_any_service_level_are_accepted(tmp_path: Path, slo: Slo) -> None:
    """Whatever its target, period, name and rules, Prometheus accepts what is written for it."""
    run = asked("check", "rules", rules_in(tmp_path, slo))
    assert run.returncode == 0, run.stderr


def test_everything_bad_alerts_by_every_rule(tmp_path: Path) -> None:
    """With nothing but bad outcomes every rule fires, and the budget is used up."""
    inputs = [series("good", "0+0x120"), series("bad", "0+1x120")]
    expected = [burning("1h", "page", "13.44", "5m", "100%"), *hour_of_six("100%")]
    agrees(tmp_path, inputs, "2h", expected)
    used_up = {
        "exp_labels": {**LABELS, "severity": "page", "window": "28d"},
        "exp_annotations": {
            "summary": "The error budget of refunds is used up",
            "description": "100% of the outcomes of support were bad within 28d; 5 % may be.",
        },
    }
    agrees(tmp_path, inputs, "2h", [used_up], "AgentguardSloExhausted")


def test_names_that_look_like_templates_are_told_as_they_are(tmp_path: Path) -> None:
    """An alert's labels and annotations are templates: braces in a workflow's name mean nothing there."""
    name = "mail {{ $value }} {{{out}}}"
    odd = replace(REFUNDS, workflow=name)
    run = asked("check", "rules", rules_in(tmp_path, odd))
    assert run.returncode == 0, run.stderr
    inputs = [series("good", "0+0x120"), series("bad", "0+1x120")]
    used_up = {
        "exp_labels": {**LABELS, "workflow": name, "severity": "page", "window": "28d"},
        "exp_annotations": {
            "summary": "The error budget of refunds is used up",
            "description": f"100% of the outcomes of {name} were bad within 28d; 5 % may be.",
        },
    }
    agrees(tmp_path, inputs, "2h", [used_up], "AgentguardSloExhausted", odd)


def test_a_burn_between_two_rules_alerts_by_the_slower(tmp_path: Path) -> None:
    """Half of them bad burns 10 times as fast: above 5.6, below 13.44."""
    inputs = [series("good", "0+1x120"), series("bad", "0+1x120")]
    agrees(tmp_path, inputs, "2h", hour_of_six("50%"))


@pytest.mark.parametrize("alert", ["AgentguardSloBurning", "AgentguardSloExhausted"])
def test_a_slow_burn_does_not_alert(tmp_path: Path, alert: str) -> None:
    """2 % bad where 5 % may be is no reason to wake anybody."""
    inputs = [series("good", "0+49x120"), series("bad", "0+1x120")]
    agrees(tmp_path, inputs, "2h", [], alert)


@pytest.mark.parametrize("alert", ["AgentguardSloBurning", "AgentguardSloExhausted"])
def test_few_outcomes_do_not_alert(tmp_path: Path, alert: str) -> None:
    """Nine bad outcomes of nine are too few."""
    inputs = [series("good", "0+0x60"), series("bad", "0+1x9 9+0x51")]
    agrees(tmp_path, inputs, "1h", [], alert)


def test_too_few_of_many_do_not_alert(tmp_path: Path) -> None:
    """1 of 10 bad is twice what may be, and nobody can be sure of it: no alert."""
    inputs = [series("good", "0+1x9 9+0x51"), series("bad", "0 1+0x59")]
    agrees(tmp_path, inputs, "1h", [])


def test_an_alert_ends_when_it_is_over(tmp_path: Path) -> None:
    """After an hour without a bad outcome the short windows of the pages are clean."""
    inputs = [series("good", "0+1x120 121+1x120"), series("bad", "0+1x120 120+0x120")]
    agrees(tmp_path, inputs, "2h", hour_of_six("50%"))
    code, words = told(tmp_path, inputs, "3h", hour_of_six("50%"))
    assert code == 1
    assert 'severity="page"' not in words.partition("got:")[2]
    assert 'severity="ticket"' in words.partition("got:")[2]  # these look back longer


def test_a_wrong_expectation_fails(tmp_path: Path) -> None:
    """The unit tests can fail: that nothing alerts while everything is bad is refused."""
    inputs = [series("good", "0+0x120"), series("bad", "0+1x120")]
    code, words = told(tmp_path, inputs, "2h", [])
    assert code == 1
    assert "FAILED" in words


def test_a_process_that_begins_anew_is_no_bad_outcome(tmp_path: Path) -> None:
    """A counter that falls to 0 with its process, and one that counts beside it, are added up."""
    inputs = [
        series("good", "0+1x60 0+1x60"), series("bad", "0+0x60 0+0x60"),
        series("good", "0+1x120", instance="b"), series("bad", "0+0x120", instance="b"),
    ]  # fmt: skip
    agrees(tmp_path, inputs, "2h", [])


def test_a_series_that_is_not_there_yet_has_no_bad_outcome(tmp_path: Path) -> None:
    """Without a counter of bad outcomes all were good; without any, nothing is said."""
    case = {
        "interval": "1m",
        "input_series": [series("good", "0+1x60")],
        "promql_expr_test": [
            {"expr": "slo:period_sli:ratio", "eval_time": "1h", "exp_samples": [
                {"labels": f"slo:period_sli:ratio{shown(LABELS)}", "value": 1}]},
        ],
    }  # fmt: skip
    assert tried(tmp_path, case, REFUNDS)[0] == 0
    nothing = {**case, "input_series": [series("good", "0+0x60")], "promql_expr_test": [
        {"expr": "slo:period_sli:ratio", "eval_time": "1h", "exp_samples": []}]}  # fmt: skip
    assert tried(tmp_path, nothing, REFUNDS)[0] == 0


def shown(labels: dict[str, str]) -> str:
    """Return labels as PromQL writes them."""
    return "{" + ",".join(f"{key}={json.dumps(value)}" for key, value in labels.items()) + "}"


def test_what_is_recorded_is_what_agentguard_says(tmp_path: Path) -> None:
    """Share, budget left, burn rate and lower bound agree with our own arithmetic."""
    low = wilson(60, 600)[0]
    expected = {
        "slo:sli_error:ratio_rate1h": "0.1",
        "slo:sli_error_low:ratio_rate1h": f"{low:.12f}",
        'slo:burn_rate:ratio{window="1h"}': "2",
        "slo:period_error_budget_remaining:ratio": "-1",
        "slo:objective:ratio": "0.95",
        "slo:time_period:days": "28",
        "slo:outcomes:increase1h": "600",
    }
    case = {
        "interval": "1m",
        "input_series": [series("good", "0+9x60"), series("bad", "0+1x60")],
        "promql_expr_test": [
            {"expr": f"abs(scalar({name}) - {value}) < bool 1e-9 or vector(0)", "eval_time": "1h",
             "exp_samples": [{"value": 1}]}
            for name, value in {k: f"vector({v})" for k, v in expected.items()}.items()
        ],
    }  # fmt: skip
    code, words = tried(tmp_path, case, REFUNDS)
    assert code == 0, words


def test_where_nothing_may_be_bad_one_is_too_many(tmp_path: Path) -> None:
    """With a target of 1 the rules alert on one bad outcome among enough, and not before."""
    fine = [series("good", "0+1x60", "never"), series("bad", "0+0x60", "never")]
    agrees(tmp_path, fine, "1h", [], "AgentguardSloExhausted", NEVER)
    worse = [fine[0], series("bad", "0+0x30 0 1+0x29", "never")]
    code, words = told(tmp_path, worse, "1h", [], "AgentguardSloExhausted", NEVER)
    assert code == 1
    assert "AgentguardSloExhausted" in words.partition("got:")[2]


def test_windows_of_outcomes_are_left_out_with_a_sentence(tmp_path: Path) -> None:
    """PromQL cannot count the last 50: one is left out, and alone it is refused."""
    exported = export([REFUNDS, FEW], "prometheus")
    assert exported.left_out == (
        (
            "the service level 'few' is left out: PromQL cannot count the last 50 outcomes; give it a"
            " window of time, or watch it with `agentguard slo status`"
        ),
    )
    assert "few" not in exported.text
    with pytest.raises(ConfigurationError, match="nothing to export: the service level 'few'"):
        export([FEW], "prometheus")


def test_rules_of_its_own_are_kept(tmp_path: Path) -> None:
    """A service level with rules of its own alerts by them and by no others."""
    rule = Burn(Window(seconds=7200), Window(seconds=600), Decimal(3), "ticket")
    own = Slo("own", "success", workflow="w", target=Decimal("0.95"), window=MONTH, burn=(rule,))
    read = reading.document(export([own], "prometheus").text)
    alerts = [r for r in read["groups"][0]["rules"] if r.get("alert") == "AgentguardSloBurning"]
    assert [(a["labels"]["window"], a["labels"]["severity"]) for a in alerts] == [("2h", "ticket")]
    assert "> 0.15" in alerts[0]["expr"]
    assert asked("check", "rules", rules_in(tmp_path, own)).returncode == 0


def checked(folder: Path, expressions: list[str]) -> None:
    """Have Prometheus read each expression, as a rule."""
    rules = [{"record": f"x:y{number}", "expr": text} for number, text in enumerate(expressions)]
    file = folder / "expressions.yml"
    file.write_text(json.dumps({"groups": [{"name": "x", "rules": rules}]}), encoding="utf-8")
    run = asked("check", "rules", file)
    assert run.returncode == 0, run.stderr
    assert f"{len(expressions)} rules found" in run.stdout


def test_expressions_of_the_dashboard_are_accepted(tmp_path: Path) -> None:
    """Every expression of the Grafana dashboard is PromQL that Prometheus reads."""
    board = json.loads(export([REFUNDS, FEW], "grafana").text)
    expressions = [t["expr"] for panel in board["panels"] for t in panel["targets"]]
    assert len(expressions) == len(board["panels"]) == 14
    checked(tmp_path, expressions)


def test_the_dashboard_shows_what_the_rules_record() -> None:
    """Each recorded name that a panel reads is one that the rules write."""
    board = export([REFUNDS], "grafana").text
    recorded = set(re.findall(r"slo:\w+:\w+", export([REFUNDS], "prometheus").text))
    assert set(re.findall(r"slo:\w+:\w+", board)) <= recorded


def test_the_dashboard_takes_its_datasource_from_whoever_imports_it() -> None:
    """No panel names a datasource of its own; all service levels can be chosen."""
    board = json.loads(export([REFUNDS, FEW], "grafana").text)
    chosen = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert chosen["datasource"]["type"] == "datasource"
    assert chosen["slo"]["query"] == "refunds,few"
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {"${datasource}"}
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    titles = " ".join(panel["title"] for panel in board["panels"])
    for family in ("SLI", "budget left", "Burn rate", "Outcomes", "Cost per run", "Escalations",
                   "Tool-call correctness"):  # fmt: skip
        assert family in titles


def test_queries_for_sloth_are_accepted(tmp_path: Path) -> None:
    """Sloth puts a window into each query; with one they are PromQL."""
    read = reading.document(export([REFUNDS], "sloth").text)
    assert read["version"] == "prometheus/v1"
    level = read["slos"][0]
    assert (level["name"], level["objective"]) == ("refunds", 95)
    assert set(level["alerting"]) >= {"name", "page_alert", "ticket_alert"}
    queries = [text.replace("{{.window}}", "5m") for text in level["sli"]["events"].values()]
    assert all("5m" in text for text in queries)
    checked(tmp_path, queries)


@pytest.mark.parametrize(
    ("slo", "why"),
    [
        (FEW, "PromQL cannot count the last 50"),
        (NEVER, "a target of 1 has none"),
        (Slo("week", "success", workflow="w", target=Decimal("0.9"), window=Window(604_800)),
         "sloth has windows for 28d and 30d, not for 7d"),
    ],
)  # fmt: skip
def test_what_sloth_cannot_carry_is_left_out_with_a_sentence(slo: Slo, why: str) -> None:
    """Windows of outcomes, other periods and a target of 1 are named, not bent."""
    (sentence,) = export([REFUNDS, slo], "sloth").left_out
    assert f"'{slo.name}' is left out" in sentence
    assert why in sentence
