"""Service levels take autonomy away, everywhere at once, and give it back by rule."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from agentguard import (
    ApprovalRequired,
    ConfigurationError,
    Guard,
    NoEffect,
    Retry,
    budget,
    compensated_by,
    idempotent,
    tool_contract,
)
from agentguard.autonomy import Autonomy
from agentguard.config import Settings
from agentguard.errors import ActionDrafted, ForbiddenAction, StoreUnavailable
from agentguard.slos import Burn, Demotion, Slo, Window
from tests.enforcement.conftest import Opens
from tests.enforcement.shop import WORKFLOW, Shop, level


def demoted(shop: Opens, *slos: Any, **settings: Any) -> Shop:
    """Open a shop whose workflow has lost its autonomy by five failures."""
    opened = shop(
        *(slos or (level(demote=Demotion("approve", "approve", restore_good=2)),)), **settings
    )
    opened.breaks()
    opened.calls_of(5)
    opened.heals()
    return opened


def test_a_workflow_that_fails_is_demoted_and_comes_back_by_rule(any_shop: Opens) -> None:
    """Within the declared window its next write waits; two good runs later it goes alone again."""
    shop = demoted(any_shop)
    assert shop.stage() == "approve"
    before = list(shop.world.effects)
    waiting = [shop.call(ticket="T-a", run_id="a"), shop.call(ticket="T-b", run_id="b")]
    assert [type(answer) for answer in waiting] == [ApprovalRequired, ApprovalRequired]
    assert shop.world.effects == before
    shop.approve()
    assert shop.call(ticket="T-a", run_id="a") == "done pay T-a"
    assert shop.stage() == "approve"
    assert shop.call(ticket="T-b", run_id="b") == "done pay T-b"
    assert shop.stage() is None
    assert shop.call(ticket="T-c") == "done pay T-c"
    told = [(c["from"], c["to"], c["why"], c["workflow"]) for c in shop.changes()]
    assert told == [
        ("auto", "approve", "slo runs exhausted", WORKFLOW),
        ("approve", "auto", "slo runs restored", WORKFLOW),
    ]


def test_the_event_stands_in_the_run_whose_outcome_it_was(shop: Opens) -> None:
    """A demotion is told where it happened, with what was counted in the window."""
    opened = shop(level())
    opened.breaks()
    opened.calls_of(4)
    assert opened.changes() == []
    opened.call(run_id="the-fifth")
    [event] = [e for e in opened.guard.runs.events("the-fifth") if e.kind == "autonomy.changed"]
    assert (event.data["good"], event.data["bad"], event.data["window"]) == (0, 5, "last 20")
    assert event.data["by"] == "system:slo"
    assert opened.guard.runs.verify("the-fifth") is None


def test_a_tool_is_demoted_in_every_workflow(shop: Opens) -> None:
    """A tool whose effects are wrong waits for people wherever it is called, others do not."""
    opened = shop(level("pays", sli="correctness"))
    opened.wrong = True
    answers = opened.calls_of(6)
    assert isinstance(answers[-1], ApprovalRequired)
    assert isinstance(opened.call(workflow="elsewhere"), ApprovalRequired)
    opened.wrong = False
    assert opened.call(opened.tool("note"), workflow="elsewhere") == "done note T-8"
    [change] = opened.changes()
    assert (change["tool"], change["slo"], "workflow" in change) == ("pay", "pays", False)


def test_a_process_that_knows_no_service_level_is_held_all_the_same(any_shop: Opens) -> None:
    """The demotion is a row: a process without any configuration starts no write of the workflow."""
    shop = demoted(any_shop)
    other = shop.another(without_config=True)
    pay = shop.tool("pay")
    assert isinstance(shop.call(pay, guard=other), ApprovalRequired)
    assert shop.call(pay, guard=other, workflow="elsewhere") == "done pay T-7"
    if shop.url != "memory://":
        other.close()


def test_a_pin_does_not_lift_a_demotion(shop: Opens) -> None:
    """What an operator pinned at auto waits for people while a service level says so."""
    opened = demoted(shop)
    opened.guard.pin("pay", "auto", by="kim", reason="trust it")
    assert isinstance(opened.call(), ApprovalRequired)


def test_the_lowest_of_all_that_is_said_counts(shop: Opens) -> None:
    """A tool pinned at draft stays a draft under a demotion to approve."""
    opened = demoted(shop)
    opened.guard.pin("pay", "draft", by="kim", reason="careful")
    assert isinstance(opened.call(), ActionDrafted)


def test_burning_and_exhausted_have_stages_of_their_own(shop: Opens) -> None:
    """What burns only needs a person; once the budget is gone, calls are only written down."""
    fast = Burn(Window(last=5), Window(last=5), Decimal(3))
    slow = level(
        window=Window(last=40),
        min_count=5,
        burn=(fast,),
        demote=Demotion("approve", "draft", restore_good=99),
    )
    opened = shop(slow)
    opened.calls_of(35)
    opened.breaks()
    opened.calls_of(4)
    assert [c["to"] for c in opened.changes()] == ["approve"]
    opened.heals()
    opened.call(ticket="T-x", run_id="x")
    opened.approve()
    opened.breaks()
    for number in range(8):
        opened.call(ticket=f"B-{number}", run_id=f"again-{number}")
        opened.approve()
        opened.call(ticket=f"B-{number}", run_id=f"again-{number}")
    assert [c["why"] for c in opened.changes()] == ["slo runs burning", "slo runs exhausted"]
    opened.heals()
    assert isinstance(opened.call(), ActionDrafted)


def test_what_is_forbidden_stays_forbidden(shop: Opens) -> None:
    """A forbidden tool is refused, not asked about."""
    opened = demoted(shop)

    @tool_contract(effect="forbidden")
    def drop(ticket: str) -> str:
        """Drop it."""
        return ticket

    assert isinstance(opened.call(drop), ForbiddenAction)


def test_reads_run_unless_the_configuration_stages_them(shop: Opens) -> None:
    """A plain read runs under a demotion, and so does one with a budget; a staged one waits."""
    drafting = level(demote=Demotion("draft", "draft"))
    opened = demoted(shop, drafting, autonomy=Autonomy(tools={"look": "approve"}))
    assert opened.call(opened.tool("search", effect="read")) == "done search T-6"
    limited = opened.tool("count", budget(max_calls=9), effect="read")
    assert opened.call(limited) == "done count T-7"
    assert isinstance(opened.call(opened.tool("look", effect="read")), ActionDrafted)


def test_what_was_allowed_before_is_asked_about_when_it_is_tried_again(shop: Opens) -> None:
    """A call whose first attempt came before the demotion does not start its second one unasked."""
    opened = shop(level(target=Decimal("0.95"), min_count=5))
    opened.breaks()
    opened.calls_of(4)
    again = iter([True, False])

    def fails() -> Exception:
        if next(again, False):
            opened.breaks()
            opened.call(
                opened.tool("pay", retry=Retry(attempts=1)), ticket="the-fifth", run_id="fifth"
            )
        return NoEffect("busy", retryable=True)

    opened.broken = fails
    retrying = opened.tool("slow", retry=Retry(attempts=3, wait=0))
    answer = opened.call(retrying, ticket="T-r", run_id="r")
    assert opened.changes()[0]["to"] == "approve"
    assert isinstance(answer, ApprovalRequired)


def test_what_was_approved_goes_on(shop: Opens) -> None:
    """A call that people approved before the demotion deepened starts, and is not asked about twice."""
    opened = demoted(shop)
    opened.call(ticket="T-a", run_id="a")
    opened.approve()
    assert opened.call(ticket="T-a", run_id="a") == "done pay T-a"
    assert len(opened.guard.approvals.list(status=None)) == 1


def test_what_was_asked_stays_asked_once_autonomy_is_back(shop: Opens) -> None:
    """A call that waits when the demotion ends still waits for its answer."""
    opened = demoted(shop)
    opened.call(ticket="T-a", run_id="a")
    opened.guard.slos.override("runs", by="kim", reason="healed", hours=1)
    assert isinstance(opened.call(ticket="T-a", run_id="a"), ApprovalRequired)
    assert opened.call(ticket="T-b") == "done pay T-b"


def test_a_doubt_is_not_repeated_by_the_agent_under_a_demotion(shop: Opens) -> None:
    """Where the backend drops repeats, a body in doubt is still not started again unasked."""
    opened = shop(level())
    tool = tool_contract(effect="write")(_lost(opened))
    pay = idempotent(key="pay:{ticket}", on_doubt="retry_same_key", downstream_dedupe="1h")(tool)
    opened.call(pay, ticket="T-d", run_id="d")
    opened.breaks()
    opened.calls_of(4)
    assert opened.stage() == "approve"
    happened = list(opened.world.effects)
    assert opened.call(pay, ticket="T-d", run_id="d").kind == "effect_in_doubt"
    assert opened.world.effects == happened


def _lost(opened: Shop) -> Any:
    def lost(ticket: str) -> str:
        opened.world.happen(f"lost {ticket}")
        raise ConnectionError("no answer")

    return lost


def test_undoing_goes_on_under_a_demotion(shop: Opens) -> None:
    """A rollback takes back what was done, whatever was taken away since."""
    opened = shop(level(demote=Demotion("approve", "approve")))

    @tool_contract(effect="write")
    @idempotent(key="unbook:{ticket}")
    def take_back(result: str, ticket: str) -> str:
        """Take it back."""
        del result
        return opened.world.happen(f"undone {ticket}")

    @tool_contract(effect="write")
    @idempotent(key="book:{ticket}")
    @compensated_by(lambda result, ticket: opened.world.happen(f"undone {ticket}") and None)
    def book(ticket: str) -> str:
        """Book."""
        return opened.world.happen(f"booked {ticket}")

    opened.call(book, ticket="T-b", run_id="b")
    opened.breaks()
    opened.calls_of(6)
    assert opened.stage() == "approve"
    del take_back
    opened.guard.rollback("b", tools=[book], by="kim", reason="wrong order")
    assert opened.world.effects[-1] == "undone T-b"


def test_a_demotion_does_not_feed_itself(shop: Opens) -> None:
    """Runs that ended because their calls were only drafted are no failures, and no successes."""
    opened = demoted(shop, level(demote=Demotion("draft", "draft", restore_good=1)))
    counted = opened.counts()
    assert all(isinstance(answer, ActionDrafted) for answer in opened.calls_of(3))
    with opened.guard.run(WORKFLOW), pytest.raises(ActionDrafted):
        opened.pay("T-told")  # the agent is told, goes on, and ends as if all were well
    assert opened.counts() == counted
    assert opened.stage() == "draft"


def test_time_alone_brings_a_draft_to_approve(shop: Opens) -> None:
    """Drafts prove nothing: after the declared time people look at each call, and runs count again."""
    rule = Demotion("draft", "draft", restore_after=1800, restore_good=2)
    opened = demoted(shop, level(demote=rule))
    opened.clock.advance(minutes=29)
    assert isinstance(opened.call(), ActionDrafted)
    opened.clock.advance(minutes=2)
    waiting = opened.call(ticket="T-a", run_id="a")
    assert waiting.approval.rule == "autonomy: approve (slo runs restored from draft)"
    assert opened.changes()[-1]["to"] == "approve"


@pytest.mark.parametrize(
    ("slo", "hours"),
    [
        pytest.param(level(demote=Demotion("draft", "draft")), 24, id="outcomes"),
        pytest.param(level(demote=Demotion("draft", "draft", None, 2)), 24, id="outcomes, good"),
        pytest.param(
            level(window=Window(seconds=7 * 86_400), demote=Demotion("draft", "draft", None, 2)),
            7 * 24, id="time, good",
        ),
    ],
)  # fmt: skip
def test_drafts_end_also_where_no_time_is_declared(shop: Opens, slo: Slo, hours: int) -> None:
    """A day after the last bad outcome, or a window of time after it, people look at each call."""
    opened = demoted(shop, slo)
    opened.clock.advance(hours=hours - 1)
    assert isinstance(opened.call(), ActionDrafted)
    opened.clock.advance(hours=1)
    assert isinstance(opened.call(), ApprovalRequired)
    assert [c["to"] for c in opened.changes()] == ["draft", "approve"]


def test_what_runs_prove_beside_their_drafts_does_not_hold_them_at_drafts(shop: Opens) -> None:
    """A bad outcome begins the wait anew, a good one does not, and neither makes it endless."""
    opened = demoted(shop, level(demote=Demotion("draft", "draft", restore_after=1800)))
    opened.clock.advance(minutes=20)
    with pytest.raises(ConnectionError), opened.guard.run(WORKFLOW):
        raise ConnectionError
    opened.clock.advance(minutes=20)
    with opened.guard.run(WORKFLOW):
        pass
    assert isinstance(opened.call(), ActionDrafted)
    opened.clock.advance(minutes=11)
    assert isinstance(opened.call(), ApprovalRequired)


def test_both_parts_of_a_rule_are_needed(shop: Opens) -> None:
    """With a time and good outcomes it comes back when both are there, and not before."""
    opened = demoted(shop, level(demote=Demotion("approve", "approve", 1800, 1)))
    opened.call(ticket="T-a", run_id="a")
    opened.approve()
    assert opened.call(ticket="T-a", run_id="a") == "done pay T-a"
    assert opened.stage() == "approve"
    opened.clock.advance(minutes=31)
    assert opened.call() == "done pay T-8"
    assert opened.stage() is None


def test_without_a_rule_it_comes_back_when_the_window_is_well(shop: Opens) -> None:
    """By default autonomy is back as soon as the window neither burns nor is exhausted."""
    opened = demoted(shop, level(window=Window(seconds=86_400)))
    opened.clock.advance(hours=23)
    assert isinstance(opened.call(), ApprovalRequired)
    opened.clock.advance(hours=2)
    assert opened.call() == "done pay T-7"
    assert [c["why"] for c in opened.changes()][-1] == "slo runs restored"


def test_a_review_gives_back_what_is_due(shop: Opens) -> None:
    """An operator's process need not wait for a run; what is given back stands in `operations`."""
    opened = demoted(shop, level(window=Window(seconds=86_400)))
    assert opened.guard.slos.review() == 0
    opened.clock.advance(hours=25)
    assert opened.guard.slos.review() == 1
    assert opened.stage() is None
    kinds = [event.kind for event in opened.guard.runs.events("operations")]
    assert kinds[-1] == "autonomy.changed"


def test_one_bad_outcome_begins_the_count_of_good_ones_anew(shop: Opens) -> None:
    """Good outcomes must follow each other: the last of three is not made up by two earlier ones."""
    opened = demoted(shop, level(demote=Demotion("approve", "approve", restore_good=3)))
    for number, works in enumerate([True, True, False, True, True]):
        opened.broken = None if works else lambda: NoEffect("no", retryable=False)
        opened.call(ticket=f"A-{number}", run_id=f"a-{number}")
        opened.approve()
        opened.call(ticket=f"A-{number}", run_id=f"a-{number}")
    assert opened.stage() == "approve"


def test_another_workflow_is_not_concerned(shop: Opens) -> None:
    """A demotion is over the workflow that burnt its budget, in the tenant where it did."""
    opened = demoted(shop)
    assert opened.call(workflow="billing") == "done pay T-6"
    other = Guard(opened.url, clock=opened.clock, principal=_in("elsewhere"))
    assert opened.call(opened.tool("pay"), guard=other) == "done pay T-7"
    other.close()


def _in(tenant: str) -> Any:
    from agentguard import Principal

    return Principal(agent="bot", tenant=tenant)


# Operators.


def test_an_override_lifts_a_demotion_until_it_is_over(any_shop: Opens) -> None:
    """For so long writes start; after that they wait again, to the second."""
    shop = demoted(any_shop, level(demote=Demotion("approve", "approve", restore_good=9)))
    shop.guard.slos.override("runs", by="kim", reason="the bank is back", hours=1)
    assert shop.call() == "done pay T-6"
    shop.clock.advance(minutes=59, seconds=58)
    assert shop.call() == "done pay T-7"
    shop.clock.advance(seconds=2)
    assert isinstance(shop.call(), ApprovalRequired)


def test_an_override_holds_also_where_the_clock_was_set_back(shop: Opens) -> None:
    """Its hours begin at the store's time, which stands still until the clock has come so far again."""
    opened = demoted(shop)
    opened.clock.set_back(hours=5)
    opened.guard.slos.override("runs", by="kim", reason="the bank is back", hours=1)
    assert opened.call() == "done pay T-6"


def test_an_override_can_be_ended(shop: Opens) -> None:
    """Once it is lifted the demotion counts again, from that commit on."""
    opened = demoted(shop)
    opened.guard.slos.override("runs", by="kim", reason="trust me", hours=1)
    opened.guard.slos.lift("runs", by="lee", reason="no")
    assert isinstance(opened.call(), ApprovalRequired)
    told = [(e.actor, e.data["why"], e.data["from"], e.data["to"], (e.content or {})["reason"])
            for e in opened.guard.runs.events("operations") if e.kind == "autonomy.changed"]  # fmt: skip
    assert told == [
        ("person:kim", "override", "approve", "auto", "trust me"),
        ("person:lee", "override lifted", "auto", "approve", "no"),
    ]


@pytest.mark.parametrize(
    "said",
    [
        {"by": "agent:bot", "reason": "why", "hours": 1},
        {"by": "\u200bAgent:bot", "reason": "why", "hours": 1},
        {"by": "system:slo", "reason": "why", "hours": 1},
        {"by": " ", "reason": "why", "hours": 1},
        {"by": "kim", "reason": " ", "hours": 1},
        {"by": "kim", "reason": "why"},
        {"by": "kim", "reason": "why", "hours": 0},
        {"by": "kim", "reason": "why", "hours": 745},
        {"by": "kim", "reason": "why", "hours": float("nan")},
        {"by": "kim", "reason": "why", "hours": float("inf")},
        {"by": "kim", "reason": "why", "until": dt.datetime(2030, 1, 1)},  # noqa: DTZ001 - that is the point
    ],
)
def test_an_override_needs_a_person_a_reason_and_an_end(shop: Opens, said: dict[str, Any]) -> None:
    """No machine lifts a demotion, nobody without a reason, and never for good."""
    opened = demoted(shop)
    with pytest.raises(ConfigurationError):
        opened.guard.slos.override("runs", **said)
    assert isinstance(opened.call(), ApprovalRequired)


def test_an_unknown_service_level_is_named(shop: Opens) -> None:
    """An override of what was never counted says which levels there are."""
    with pytest.raises(ConfigurationError, match="which has runs, and nothing was ever counted"):
        shop(level()).guard.slos.override("run", by="kim", reason="why", hours=1)


def test_a_level_that_is_not_declared_any_more_holds_until_it_is_lifted(shop: Opens) -> None:
    """Taking a service level out of the configuration gives no autonomy back; an operator does."""
    opened = demoted(shop)
    other = opened.another(without_config=True)
    [found] = other.slos.status()
    assert (found.slo, found.now, found.head.stage) == (None, None, "approve")
    other.slos.override("runs", by="kim", reason="it was renamed", hours=1)
    assert opened.call(opened.tool("pay"), guard=other) == "done pay T-6"
    other.close()


@pytest.mark.parametrize("name", ["runs", "runs_of_last_year"])
def test_a_level_that_shall_demote_nothing_gives_back_what_it_took(shop: Opens, name: str) -> None:
    """Who writes `demote: off`, also of a level that is out of use, has autonomy back at the next run."""
    opened = demoted(shop, level(name, demote=Demotion("draft", "draft")))
    assert isinstance(opened.call(), ActionDrafted)
    off = Settings(slos=(level(name, demote=None),))
    other = Guard(opened.url, config=off, clock=opened.clock)
    assert opened.call(opened.tool("pay"), guard=other) == "done pay T-7"
    other.close()
    assert opened.call() == "done pay T-8"
    told = f"slo {name} demotes nothing any more"
    assert [(c["from"], c["to"], c["why"]) for c in opened.changes()][1:] == [
        ("draft", "auto", told)
    ]


def test_a_damaged_stage_starts_nothing(shop: Opens) -> None:
    """Where the stage is not as it was written, a write is refused, and the store is named."""
    opened = demoted(shop)
    opened.guard.store.transact(lambda tx: tx.run("UPDATE slos SET stage = 'free'"))
    with opened.guard.run("elsewhere", run_id="e"):
        pass
    with pytest.raises(StoreUnavailable, match="not as it was written"):
        opened.guard.slos.status()
    other = opened.another(without_config=True)
    answer = opened.call(opened.tool("pay"), guard=other)
    assert isinstance(answer, StoreUnavailable)
    other.close()
