"""Estimates: what a plan costs at the worst, what is not known of it, and what has no room."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentguard import (
    ConfigurationError,
    Guard,
    NoEffect,
    Retry,
    budget,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard.config import loads
from agentguard.estimates import Estimate
from tests.cli import world

CONFIGURATION = """agent_run:
  max_steps: 20
  max_model_calls: 4
  max_spend_usd: 10
  costs: {human_usd_per_hour: 60, minutes_per_decision: 2}
  templates:
    refund:
      parameters: [ticket_id, amount_usd]
      steps:
        - tool: issue_refund
          arguments: {ticket_id: "{ticket_id}", amount_usd: "{amount_usd}"}
        - tool: check_credit
"""
TOOLS = """
from decimal import Decimal
from agentguard import Retry, budget, idempotent, requires_approval, tool_contract


@tool_contract(effect="write", retry=Retry(attempts=3))
@idempotent(key="{ticket_id}")
@requires_approval(when="amount_usd > 50", quorum=2)
@budget(max_spend_usd="200", cost="amount_usd")
def issue_refund(ticket_id: str, amount_usd: Decimal) -> str:
    return ticket_id


@tool_contract(effect="read", retry=Retry(attempts=4))
@budget(cost="0.25", max_calls=3)
def check_credit(customer: str) -> str:
    return customer
"""


@tool_contract(effect="write", retry=Retry(attempts=3))
@idempotent(key="{ticket_id}")
@requires_approval(when="amount_usd > 50", quorum=2)
@budget(max_spend_usd="200", cost="amount_usd")
def issue_refund(ticket_id: str, amount_usd: Decimal) -> str:
    """Pay."""
    return f"{ticket_id} {amount_usd}"


@tool_contract(effect="read", retry=Retry(attempts=4))
@budget(cost="0.25", max_calls=3)
def check_credit(customer: str = "") -> str:
    """Buy a report."""
    return customer


@tool_contract(effect="write")
@idempotent(per="call")
@budget(cost=lambda pages: Decimal(pages) / 10)
def fax(pages: int) -> int:
    """Send a fax, paid by the page."""
    return pages


@tool_contract(effect="read")
def look_up(ticket_id: str) -> str:
    """Look up, for nothing."""
    return ticket_id


ALL = (issue_refund, check_credit, fax, look_up)


@pytest.fixture(name="guard")
def guard_without_a_file() -> Iterator[Guard]:
    """Open a store for one test."""
    prices = {"fast": ("1000", "2000")}
    guard = Guard("memory://", config=loads(CONFIGURATION), prices=prices)
    yield guard
    guard.close()


def step(tool: str, repeat: int = 1, **arguments: Any) -> dict[str, Any]:
    """Write one step of a plan."""
    return {"tool": tool, "arguments": arguments, "repeat": repeat}


def estimate(guard: Guard, *steps: Any, **options: Any) -> Estimate:
    """Estimate a plan whose tools are known and whose model costs nothing."""
    given: dict[str, Any] = {"model_usd": 0, **options}
    return guard.estimate(list(steps), tools=ALL, **given)


def test_every_try_counts(guard: Guard) -> None:
    """A step costs what its calls cost, all tries that are allowed included."""
    found = estimate(guard, step("check_credit", 2), step("look_up"))
    assert [(s.calls, s.starts, s.usd) for s in found.steps] == [
        (2, 8, Decimal("2.00")), (1, 1, Decimal(0)),
    ]  # fmt: skip
    assert (found.tool_usd, found.total_usd, found.fits) == (Decimal("2.00"), Decimal("2.00"), True)


def test_money_that_is_moved_is_not_the_runs(guard: Guard) -> None:
    """What a tool moves under a budget of its own stands apart, once for each call."""
    found = estimate(guard, step("issue_refund", ticket_id="T-1", amount_usd="20.50"))
    assert (found.steps[0].usd, found.steps[0].moved_usd) == (Decimal(0), Decimal("20.50"))
    assert found.fits is True


def test_a_cost_over_arguments_is_known_where_they_are(guard: Guard) -> None:
    """A cost that is computed is computed from the plan's arguments."""
    assert estimate(guard, step("fax", 3, pages=20)).tool_usd == Decimal("6.00")


def test_what_depends_on_free_arguments_is_unknown(guard: Guard) -> None:
    """A cost that the plan leaves open is said to be unknown, and is not zero."""
    found = estimate(guard, step("fax"), step("check_credit"))
    assert (found.steps[0].usd, found.tool_usd, found.fits) == (None, None, None)
    assert found.total_usd == Decimal("1.00")
    assert found.unknown == (
        "step 1: what fax costs depends on arguments that the plan leaves free",
    )


def test_a_budget_of_the_tool_is_the_worst_of_what_is_not_known(guard: Guard) -> None:
    """Where an amount is free, the tool's own limit is what it can come to."""
    found = estimate(guard, step("issue_refund", ticket_id="T-1"))
    assert (found.steps[0].moved_usd, found.unknown) == (Decimal("200.00"), ())


def test_people_who_may_decide_cost_their_time(guard: Guard) -> None:
    """Where a rule asks, or may ask, each of the people counts."""
    asked, free, never = (
        estimate(guard, step("issue_refund", ticket_id="T-1", **given))
        for given in ({"amount_usd": 60}, {}, {"amount_usd": 50})
    )
    assert [found.steps[0].decisions for found in (asked, free, never)] == [2, 2, 0]
    assert (asked.human_minutes, asked.human_usd) == (Decimal(4), Decimal("4.00"))
    assert (never.human_minutes, never.human_usd) == (Decimal(0), Decimal(0))


def test_time_that_has_no_price_is_unknown() -> None:
    """Without a configuration of costs the decisions are counted and their price is not known."""
    guard = Guard("memory://")
    found = guard.estimate([step("issue_refund")], tools=ALL, max_model_calls=0)
    guard.close()
    assert found.human_minutes is None
    assert "how long 2 decisions of people take" in found.unknown[-1]


def test_models_cost_what_the_limits_allow(guard: Guard) -> None:
    """So many calls as the run may make, each at its price for so many tokens."""
    found = guard.estimate(
        [step("look_up")], tools=ALL, model="fast", input_tokens=1000, output_tokens=100
    )
    assert (found.model_calls, found.model_usd) == (4, Decimal("4.80"))
    assert found.fits is True


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model_usd": None}, "what a model call costs: give model_usd="),
        ({"model": "other", "model_usd": None}, "what a model call costs"),
    ],
)
def test_models_without_a_price_are_unknown(
    guard: Guard, options: dict[str, Any], says: str
) -> None:
    """A model call whose price nobody gave is unknown, not free."""
    found = estimate(guard, step("look_up"), **options)
    assert (found.model_usd, found.fits) == (None, None)
    assert found.unknown[0].startswith(says)


def test_models_without_a_limit_are_unknown() -> None:
    """Nobody can say how many calls a run without a limit makes."""
    guard = Guard("memory://")
    found = guard.estimate([step("look_up")], tools=ALL, model_usd=1)
    guard.close()
    assert found.unknown == ("how many model calls: set max_model_calls",)


@pytest.mark.parametrize(
    ("steps", "limits", "says"),
    [
        ([step("look_up", 3)], {"max_tool_calls": 2}, "max_tool_calls is 2 and the plan has 3"),
        ([step("look_up", 3)], {"max_steps": 6},
         "max_steps is 6 and the plan has 3 calls of tools beside 4 of models"),
        ([step("check_credit")], {"max_spend_usd": "0.50"},
         "max_spend_usd is 0.50 and the worst case is 1.00"),
        ([step("check_credit", 2), step("check_credit", 2)], {},
         "max_calls of check_credit per run is 3 and the plan has 4"),
        ([step("issue_refund", 5, amount_usd=50)], {},
         "max_spend_usd of issue_refund per run is 200.00 and the plan comes to 250.00"),
    ],
)  # fmt: skip
def test_a_limit_that_is_too_small_is_named(
    guard: Guard, steps: list[Any], limits: dict[str, Any], says: str
) -> None:
    """A limit without room for the worst case is named with what the plan comes to."""
    found = estimate(guard, *steps, **limits)
    assert (found.misfits, found.fits) == ((says,), False)


def test_a_tool_that_is_not_known_is_unknown(guard: Guard) -> None:
    """A step whose tool nobody has given costs nobody knows what."""
    found = estimate(guard, step("teleport"))
    assert found.unknown == ("step 1: teleport is not among the tools that were given",)
    assert found.fits is None


def test_a_template_is_estimated_with_and_without_parameters(guard: Guard) -> None:
    """Without parameters the arguments that they fill are free."""
    free = guard.estimate("refund", tools=ALL, model_usd=0)
    filled = guard.estimate(
        "refund", tools=ALL, model_usd=0, parameters={"ticket_id": "T-1", "amount_usd": 10}
    )
    assert (free.steps[0].decisions, free.steps[0].moved_usd) == (2, Decimal("200.00"))
    assert (filled.steps[0].decisions, filled.steps[0].moved_usd) == (0, Decimal("10.00"))


def test_an_autonomy_that_asks_counts() -> None:
    """Where a stage below auto holds calls back, a person is counted for each."""
    configured = CONFIGURATION + "  autonomy: approve\n"
    guard = Guard("memory://", config=loads(configured))
    found = guard.estimate([step("fax", 2, pages=1)], tools=ALL, model_usd=0)
    guard.close()
    assert found.steps[0].decisions == 2


def test_an_estimate_of_a_plan_that_is_none_is_refused(guard: Guard) -> None:
    """What `run.plan` refuses cannot be estimated."""
    with pytest.raises(ConfigurationError, match="a step is a dict with tool"):
        estimate(guard, {"call": "look_up"})
    with pytest.raises(ConfigurationError, match="parameters are for templates"):
        estimate(guard, step("look_up"), parameters={"x": 1})


@given(
    planned=st.lists(st.tuples(st.sampled_from(("cheap", "dear")), st.integers(1, 3)), min_size=1,
                     max_size=4),
    failures=st.lists(st.integers(0, 3), min_size=12, max_size=12),
)  # fmt: skip
@hypothesis.settings(max_examples=40)
def test_no_run_of_a_plan_costs_more_than_its_estimate(
    planned: list[tuple[str, int]], failures: list[int]
) -> None:
    """Whatever fails and is tried again, and pays for each try: the worst case is not exceeded."""
    guard, left = Guard("memory://"), list(failures)

    def body(name: str, usd: str, attempts: int) -> Any:
        @tool_contract(effect="write", name=name, retry=Retry(attempts=attempts, wait=0))
        @idempotent(per="call")
        @budget(cost=usd)
        def call(number: int) -> int:
            run = current_run()
            if run.call.attempt <= left[number]:
                run.add_cost("tool", usd)  # the backend wants its money for a failed try, too
                raise NoEffect("busy")
            return number

        return call

    tools = {"cheap": body("cheap", "0.01", 3), "dear": body("dear", "2.50", 2)}
    plan = [step(tool, repeat) for tool, repeat in planned]
    worst = guard.estimate(plan, tools=tools.values(), max_model_calls=0)
    with guard.run("refunds", run_id="r-1") as run:
        run.plan(plan, outside="refuse")
        for number, (tool, _) in enumerate((t, n) for t, many in planned for n in range(many)):
            with contextlib.suppress(NoEffect):
                tools[tool](number)
    shown = guard.runs.show("r-1")
    guard.close()
    assert shown.spent_usd <= worst.total_usd
    assert shown.tool_calls <= worst.tool_calls


@pytest.fixture(name="folder")
def a_folder_with_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with a configuration, a plan and a module of tools."""
    (tmp_path / "agent_run.yaml").write_text(CONFIGURATION)
    (tmp_path / "shop_for_estimates.py").write_text(TOOLS)
    plan = [step("issue_refund", ticket_id="T-1", amount_usd=60), step("check_credit", 2)]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, *words: str) -> Any:
    """Run `runs estimate` in the folder."""
    options = ("--config", "agent_run.yaml", "--tools", "shop_for_estimates")
    return world.call(folder / "none.db", world.Clock(), "runs", "estimate", *options, *words)


def test_the_command_tells_the_worst_case(folder: Path) -> None:
    """`runs estimate` prints each step, what is paid for whom, and that it fits."""
    ended = run(folder, "--plan", "plan.json", "--model-usd", "0.10")
    assert ended.exit_code == 0, ended.output
    lines = [" ".join(line.split()) for line in ended.stdout.splitlines()]
    assert lines == [
        "step 1 issue_refund, 1 call, 3 starts, $0.00, moves $60.00, 2 decisions of people",
        "step 2 check_credit, 2 calls, 8 starts, $2.00",
        "calls 3 of tools, 4 of models",
        "tools $2.00",
        "models $0.40",
        "people 4 min, $4.00",
        "worst case $6.40",
        "ok the limits have room for the worst case",
    ]
    assert not (folder / "none.db").exists()


def test_the_command_says_what_does_not_fit(folder: Path) -> None:
    """A worst case over a limit is exit 5, in words and as JSON."""
    ended = run(folder, "--plan", "plan.json", "--model-usd", "2", "-o", "json")
    found = json.loads(ended.stdout)
    assert (ended.exit_code, found["fits"], found["total_usd"]) == (5, False, "14.00")
    assert found["misfits"] == ["max_spend_usd is 10.00 and the worst case is 14.00"]


def test_the_command_knows_templates(folder: Path) -> None:
    """A template is estimated by its name, with its parameters or without."""
    found = json.loads(run(folder, "--template", "refund", "-o", "json").stdout)
    assert (found["fits"], found["steps"][0]["moved_usd"]) == (None, "200.00")
    words = ["--template", "refund", "--parameter", "ticket_id=T-1", "--parameter", "amount_usd=5"]
    found = json.loads(run(folder, *words, "-o", "json").stdout)
    assert found["steps"][0]["moved_usd"] == "5.00"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "--plan FILE or --template NAME"),
        (["--plan", "plan.json", "--template", "refund"], 2, "--plan FILE or --template NAME"),
        (["--plan", "none.json"], 1, "the plan cannot be read"),
        (["--plan", "agent_run.yaml"], 1, "the plan cannot be read"),
        (["--template", "refnd"], 5, "there is no template 'refnd'; there are: refund"),
        (["--template", "refund", "--parameter", "x"], 2, "write NAME=VALUE"),
        (["--plan", "plan.json", "--parameter", "x=1"], 2, "--parameter is for templates"),
    ],
)
def test_the_command_refuses_what_is_no_plan(
    folder: Path, words: list[str], code: int, says: str
) -> None:
    """What cannot be estimated is one sentence on stderr."""
    ended = run(folder, *words)
    assert ended.exit_code == code
    assert says in ended.stderr
