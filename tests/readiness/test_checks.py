"""Every check can pass and can fail: one shop that passes all, and one change for each that does not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest

from agentguard import (
    Guard,
    Principal,
    Retry,
    budget,
    compensated_by,
    falls_back_to,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from agentguard.model import VerifierIdentity
from agentguard.readiness import CHECKS, Project, Report, Telemetry, grade
from tests.readiness.shop import (
    GOOD,
    Shop,
    answer_late,
    declared,
    good,
    lose_a_reply,
    retry_dearly,
    tool,
    with_telemetry,
)


def undeclared(ticket_id: str) -> str:
    """Do something without a guard."""
    return ticket_id


def untyped(ticket_id, amount_usd: int) -> str:  # type: ignore[no-untyped-def] # noqa: ANN001 - on purpose
    """Take whatever comes as a ticket."""
    del amount_usd
    return str(ticket_id)


def mute(ticket_id: str, amount_usd: int):  # type: ignore[no-untyped-def] # noqa: ANN201 - on purpose
    """Say nothing of what it returns."""
    return ticket_id, amount_usd


class Reply(TypedDict):
    """What an API says that returns its errors."""

    id: str
    error: str


def replies(ticket_id: str, amount_usd: int) -> Reply:
    """Return errors instead of raising them."""
    return {"id": ticket_id, "error": str(amount_usd)}


class Judge:
    """A model that is asked whether it is right."""

    identity = VerifierIdentity("model", "judge", model="other")

    def __call__(self, arguments: Any, result: Any) -> bool:
        """Say yes to whatever is there."""
        return bool(arguments or result)


@tool_contract(effect="read")
def delete_order(order_id: str) -> str:
    """Delete an order, whatever its contract says."""
    return order_id


def without(line: str) -> Project:
    """Return the good project without the lines of its file that begin so."""
    kept = [each for each in GOOD.splitlines() if not each.strip().startswith(line)]
    return good(text="\n".join(kept) + "\n")


def said(**keys: str) -> Project:
    """Return the good project with more keys in its file."""
    more = "".join(f"  {name}: {value}\n" for name, value in keys.items())
    before, slos, after = GOOD.partition("  slos:")
    return good(text=before + more + slos + after)


def quiet(found: Telemetry) -> Project:
    """Return the good project where telemetry is set up so."""
    return with_telemetry(good(), found)


MINIMUM: dict[str, Callable[[], Project]] = {
    "safety.declared": lambda: good(tool(), undeclared),
    "safety.key": lambda: good(declared_per_call()),
    "safety.input": lambda: good(tool(untyped)),
    "safety.output": lambda: good(tool(mute)),
    "safety.timeout": lambda: good(tool(timeout=None, isolation=None)),
    "safety.rate": lambda: good(declared(refunds(), budget, max_calls=None)),
    "safety.retries": lambda: good(tool(retry=Retry(attempts=6))),
    "safety.retry_budget": lambda: said(retry_budget="off"),
    "safety.errors": lambda: good(tool(replies)),
    "safety.doubt": lambda: good(declared(refunds(), idempotent, reconcile=None)),
    "safety.undo": lambda: good(tool(without=(compensated_by,))),
    "verification.verifier": lambda: good(tool(without=(verified_by,))),
    "verification.deterministic": lambda: good(judged()),
    "verification.fallback": lambda: good(
        tool(without=(falls_back_to,)), text=GOOD.replace("  falls_back_to: draft\n", "")
    ),
    "governance.scopes": lambda: good(tool(scopes=())),
    "governance.principal": lambda: good(principal=Principal("support")),
    "governance.approvals": lambda: good(
        tool(without=(requires_approval,)), text=GOOD.replace("refund_usd_over: 50", "{}", 1)
        .replace("approvals:\n    {}", "approvals: {}"),
    ),
    "governance.category": lambda: good(tool(), delete_order),
    "governance.autonomy": lambda: without("autonomy"),
    "observability.trace": lambda: good(text=GOOD.replace("opentelemetry", "none")),
    "observability.exporter": lambda: quiet(Telemetry(sdk=True, off="OTEL_SDK_DISABLED")),
    "observability.retention": lambda: without("retention_days"),
    "observability.slos": lambda: good(text=GOOD.partition("  slos:")[0]),
    "cost.steps": lambda: without("max_steps"),
    "cost.model_calls": lambda: without("max_model_calls"),
    "cost.spend": lambda: without("max_spend_usd"),
    "cost.prices": lambda: good(
        text=GOOD.replace("  costs:\n    models:\n      planner: {input_usd: 10, output_usd: 30}\n", "")
    ),
    "cost.routing": lambda: good(text=GOOD.replace("  routing:\n    planner_model: planner\n", "")),
    "cost.budgets": lambda: good(tool(without=(budget,), rate_limit="5/second")),
    "cost.loops": lambda: said(loops="off"),
}  # fmt: skip
"""What makes a check of the minimum bar fail."""


def refunds() -> Callable[..., Any]:
    """Return a body that no decorator is on yet."""

    def refund(ticket_id: str, amount_usd: int) -> str:
        """Give money back."""
        del amount_usd
        return ticket_id

    return refund


def declared_per_call() -> Any:
    """Return the good tool with an effect for each call."""
    return declared(refunds(), idempotent, key=None, per="call")


def judged() -> Any:
    """Return the good tool, verified by a model alone."""
    return verified_by(Judge())(tool(without=(verified_by,)))


def tampered(folder: Path) -> Project:
    """Change an event behind the record's back."""
    shop = Shop(f"sqlite:///{folder}/shop.db").work(30)
    with sqlite3.connect(folder / "shop.db") as file:
        file.execute("UPDATE events SET actor = 'agent:other' WHERE run_id = 'r-T-3' AND seq = 2")
    file.close()
    found = shop.project()
    shop.guard.close()
    return found


def test_a_run_whose_row_was_changed_is_not_whole(tmp_path: Path) -> None:
    """What a run spent stands in its row: changing that is seen like changing an event."""
    shop = Shop(f"sqlite:///{tmp_path}/shop.db").work(3)
    with sqlite3.connect(tmp_path / "shop.db") as file:
        file.execute("UPDATE runs SET spent = 1 WHERE run_id = 'r-T-1'")
    file.close()
    report = grade(shop.project())
    shop.guard.close()
    (found,) = [f for f in report.findings if f.id == "governance.audit"]
    assert found.status == "fail"
    assert "r-T-1" in found.evidence


def worked(change: Callable[[Shop], object] = lambda _shop: None, count: int = 50) -> Project:
    """Return the shop after a change and so many refunds."""
    shop = Shop()
    change(shop)
    return shop.work(count).project()


def unlimited(shop: Shop) -> None:
    """Make a run whose guard has no configuration."""
    guard = Guard(shop.guard.store, principal=shop.guard.principal)
    with guard.run("refund", run_id="r-free"):
        shop.clock.advance(1)


SCALE: dict[str, Callable[[Path], Project]] = {
    "safety.duplicates": lambda _: worked(answer_late),
    "safety.doubts": lambda _: worked(lose_a_reply),
    "verification.outcomes": lambda _: worked(
        lambda shop: setattr(shop, "ticket", lambda n: f"T-wrong-{n}" if n % 5 == 0 else f"T-{n}")
    ),
    "governance.audit": tampered,
    "governance.decisions": lambda _: worked(lambda shop: setattr(shop, "reason", "")),
    "observability.time": lambda _: worked(
        lambda shop: setattr(shop, "seconds", lambda number: 10 if number < 25 else 40)
    ),
    "observability.escalation": lambda _: worked(
        lambda shop: setattr(shop, "amount", lambda _number: 75)
    ),
    "cost.predictable": lambda _: worked(
        lambda shop: setattr(shop, "tokens", lambda n: 9000 if n % 10 == 5 else 1000)
    ),
    "cost.complete": lambda _: worked(lambda shop: setattr(shop, "model", "dream")),
    "cost.retries": lambda _: worked(retry_dearly),
    "cost.capped": lambda _: worked(unlimited),
}
"""What makes a signal of the record fail."""


@pytest.fixture(name="running", scope="module")
def a_shop_that_runs() -> Project:
    """Run the good shop once for all tests that only look."""
    return worked()


def standing(report: Report, check: str) -> str:
    """Return how one check stands."""
    (level,) = [each.level for each in CHECKS if each.id == check]
    return report.standings(level)[check]


def test_every_check_has_a_way_to_fail() -> None:
    """The tables of this file name each check of the list, once."""
    assert sorted([*MINIMUM, *SCALE]) == sorted(check.id for check in CHECKS)


def test_the_good_project_passes_the_minimum_bar() -> None:
    """Tools and a file with all that is asked for are graded without a record."""
    assert grade(good()).below("minimum") == []


def test_the_good_shop_is_scale_ready(running: Project) -> None:
    """Fifty runs without trouble pass every check there is."""
    assert grade(running).below("scale") == []


@pytest.mark.parametrize("check", MINIMUM)
def test_one_change_fails_one_check_of_the_minimum(check: str) -> None:
    """Each check fails by the change that is about it, and says where and what to do."""
    report = grade(MINIMUM[check]())
    assert standing(report, check) == "fail"
    (first, *_) = [f for f in report.findings if f.id == check and f.status == "fail"]
    assert first.evidence
    assert first.action
    assert bool(first.tool) == bool(first.file and first.file.endswith(".py"))
    allowed = {check, *ALONG.get(check, ())}
    assert set(report.below("minimum")) <= allowed


ALONG = {
    "safety.declared": tuple(
        check.id for check in CHECKS if check.id not in ("safety.retry_budget", "cost.loops")
    ),
    "verification.verifier": ("verification.deterministic",),
}
"""What fails for the same reason."""


@pytest.mark.parametrize("check", SCALE)
def test_one_change_fails_one_signal_of_the_record(check: str, tmp_path: Path) -> None:
    """Each signal fails by the trouble that is about it."""
    report = grade(SCALE[check](tmp_path))
    assert standing(report, check) == "fail"
    (found,) = [f for f in report.findings if f.id == check]
    assert found.action


@pytest.mark.parametrize("check", SCALE)
def test_without_a_record_nothing_is_scale_ready(check: str) -> None:
    """Where there is no record a signal is unknown, and the store is asked for."""
    report = grade(good())
    (found,) = [f for f in report.findings if f.id == check]
    assert (found.status, found.action) == ("unknown", "--store URL, or AGENTGUARD_STORE")


def test_few_runs_are_no_pass() -> None:
    """After eight refunds no signal passes but those that one event can tell, and the rest is counted."""
    report = grade(worked(count=8))
    passing = {name for name, how in report.standings("scale").items() if how == "pass"}
    assert passing == {"governance.decisions"}
    (found,) = [f for f in report.findings if f.id == "governance.audit"]
    assert (
        found.evidence
        == "8 runs, and 30 are needed; so far: hash chains and rows of 8 runs are whole"
    )
    assert found.action == "22 more runs, then check again"


def test_verified_outcomes_tell_how_many_more_are_needed() -> None:
    """Ten runs without a miss are not sure enough: the number of runs that would be is said."""
    report = grade(worked(count=10))
    (found,) = [f for f in report.findings if f.id == "verification.outcomes"]
    assert found.status == "unknown"
    assert found.evidence.startswith(
        "10 of 10 runs that wrote were verified (100.0 %), surely at least 78."
    )
    assert found.action == "20 more verified runs, then check again"


def test_of_a_tool_that_nobody_declared_nothing_passes() -> None:
    """Whether an undeclared tool writes is unknown, and so is each check of writes, waived or not."""
    text = GOOD.replace(
        "  costs:",
        '  check:\n    waive:\n      undeclared:safety.declared: "it is declared elsewhere"\n  costs:',
    )
    report = grade(good(undeclared, text=text))
    unknown = {f.id for f in report.findings if f.tool == "undeclared" and f.status == "unknown"}
    assert unknown >= {"safety.key", "safety.input", "verification.verifier"}
    assert unknown >= {"governance.scopes", "governance.category", "cost.budgets"}
    assert {f.id for f in report.findings if f.tool and f.status == "pass"} == set()


@pytest.mark.parametrize(
    "name", ["deleteOrder", "DeleteOrder", "shop-delete_order", "crm.update", "send-mail"]
)
def test_a_name_says_that_it_writes_however_it_is_spelled(name: str) -> None:
    """Camel case, and the name of a plugin before it, hide no verb."""
    read = tool_contract(effect="read", name=name)(undeclared)
    assert "governance.category" in grade(good(tool(), read)).below("minimum")


@pytest.mark.parametrize("name", ["settings", "get_order", "shop-list", "addresses", "updated_at"])
def test_other_names_do_not_say_so(name: str) -> None:
    """A name that only begins with the letters of a verb is a name of a read."""
    read = tool_contract(effect="read", name=name)(undeclared)
    assert grade(good(tool(), read)).below("minimum") == []


def of_code(count: int, **budget: Any) -> Report:
    """Grade runs whose limits are given in code alone, and nowhere else."""
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith("  max_")) + "\n"
    shop = Shop(text=text)
    for number in range(count):
        with shop.guard.run(run_id=f"r-{number}", **budget):
            shop.clock.advance(1)
    return grade(shop.project(text=text))


LIMITS = {
    "cost.steps": "max_steps",
    "cost.model_calls": "max_model_calls",
    "cost.spend": "max_spend_usd",
}


@pytest.mark.parametrize(("check", "limit"), LIMITS.items())
def test_limits_that_code_gives_are_seen_in_the_record(check: str, limit: str) -> None:
    """Thirty runs that had a limit are evidence of it, fewer are not yet, and one without is against."""
    assert standing(of_code(30, **{limit: 5}), check) == "pass"
    few = of_code(29, **{limit: 5})
    assert standing(few, check) == "unknown"
    (found,) = [f for f in few.findings if f.id == check]
    assert found.evidence.endswith(f"so far: each of 29 runs had a {limit}")
    (found,) = [f for f in of_code(1).findings if f.id == check]
    assert (found.status, found.evidence) == ("fail", f"1 of 1 run had no {limit}, such as r-0")


def test_a_run_that_one_part_entered_without_scopes_had_none() -> None:
    """Scopes of the first part say nothing of what a later part was allowed."""
    shop = Shop()
    for who in (shop.guard.principal, Principal("support")):
        with shop.guard.run(run_id="r-1", principal=who):
            shop.clock.advance(1)
    (found,) = [f for f in grade(shop.project()).findings if f.id == "governance.principal"]
    assert (found.status, found.evidence) == (
        "fail",
        "1 run of 1 had no scopes: their agent may do anything",
    )


def test_a_cost_that_is_partly_known_is_no_evidence() -> None:
    """Completed runs with a model that has no price do not tell what a completion costs."""

    def two_models(shop: Shop) -> None:
        shop.model = "dream"
        shop.refund = budget(max_calls=3, cost="1")(tool(without=(budget,)))

    report = grade(worked(two_models, count=40))
    (found,) = [f for f in report.findings if f.id == "cost.predictable"]
    assert found.status == "unknown"
    assert found.evidence.startswith("0 of 40 completed runs were verified, or wrote nothing, and")


def test_an_ending_for_some_errors_alone_is_told_so() -> None:
    """Who falls back after some errors only sees after which."""
    (found,) = [f for f in grade(good(tool())).findings if f.id == "verification.fallback"]
    assert found.evidence == "falls back to draft on tool_timeout alone"


def test_prices_that_code_gives_are_seen_in_the_record() -> None:
    """Thirty runs whose model calls have a cost are evidence of prices; one without is against."""
    text = GOOD.replace(
        "  costs:\n    models:\n      planner: {input_usd: 10, output_usd: 30}\n", ""
    )

    def found(count: int, **options: Any) -> tuple[str, str]:
        shop = Shop(text=text)
        shop.guard = Guard("memory://", config=shop.guard.settings, clock=shop.clock, **options)
        report = grade(shop.work(count).project(text=text))
        [said] = [f for f in report.findings if f.id == "cost.prices"]
        return said.status, said.evidence

    prices = {"planner": (10, 30)}
    assert found(30, prices=prices) == ("pass", "every cost of 30 runs with model calls is known")
    assert found(29, prices=prices)[1].startswith("29 runs, and 30 are needed; so far: every cost")
    told = "nobody knew what 1 of 1 run with model calls, such as r-T-0, cost"
    assert found(1) == ("fail", told)


def test_an_endpoint_takes_no_spans_that_a_provider_drops() -> None:
    """A provider that gives spans to nobody fails, also where the environment names a collector."""
    found = Telemetry(sdk=True, provider="TracerProvider", idle=True, targets=("OTEL_ENDPOINT",))
    assert grade(quiet(found)).below("minimum") == ["observability.exporter"]
