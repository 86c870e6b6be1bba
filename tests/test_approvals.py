"""Approved means this call (guarantee G5): what people said yes to, once, and nothing else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentguard import (
    ApprovalExpired,
    ApprovalRejected,
    ApprovalRequired,
    BudgetExceeded,
    ConfigurationError,
    DecisionRefused,
    Guard,
    GuardError,
    IdempotencyConflict,
    NoEffect,
    PermissionDenied,
    Principal,
    ToolFailed,
    budget,
    config,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard.model import Approval
from agentguard.testing import FakeClock
from tests.support import World

WHO = Principal(agent="support", subject="bob", tenant="acme")
YES = "approve"


class Desk:
    """A guard on a store file, the world its tools change, and short words for what people do."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.path = FakeClock(), folder / "a.db"
        self.world = World(folder / "world.txt")
        self.guard = self.open()

    def open(self, yaml: str | None = None) -> Guard:
        """Open the store as one more process would."""
        settings = None if yaml is None else config.loads(yaml)
        return Guard(f"sqlite:///{self.path}", config=settings, clock=self.clock, principal=WHO)

    def reopen(self) -> None:
        """Go on in a new process."""
        self.guard.close()
        self.guard = self.open()

    def refund(self, **options: Any) -> Callable[..., Any]:
        """Make a tool that always needs approval, unless told otherwise."""
        more = {name: options.pop(name) for name in ("version", "sensitive") if name in options}

        @tool_contract(effect="write", **more)
        @idempotent(key="refund:{ticket}")
        @requires_approval(**options)
        def refund(ticket: str, amount: Decimal = Decimal(75), note: str = "") -> str:
            return self.world.happen(f"{ticket} {amount} {note}".strip())

        return refund

    def call(self, tool: Callable[..., Any], *args: Any, run: str = "r", **who: Any) -> Any:
        """Call *tool* in a run, and return its result or what it raises."""
        principal = Principal(**{"agent": "support", "subject": "bob", "tenant": "acme", **who})
        try:
            with self.guard.run("w", run_id=run, principal=principal):
                return tool(*args)
        except (GuardError, NoEffect) as error:
            return error

    def ask(self, tool: Callable[..., Any], *args: Any, **where: Any) -> Approval:
        """Call *tool*, which has to wait, and return what it waits for."""
        error = self.call(tool, *args, **where)
        assert isinstance(error, ApprovalRequired)
        found: Approval = error.approval
        return found

    def decide(self, approval: Approval, decision: str = YES, by: str = "dana", **more: Any) -> str:
        """Take a decision and return how the approval stands."""
        if decision == "reject":
            more.setdefault("reason", "not this one")
        return self.guard.approvals.decide(approval.id, decision, by=by, **more).status

    def refused(
        self, approval: Approval, decision: str = YES, by: str = "dana", **more: Any
    ) -> GuardError:
        """Take a decision that is not allowed, and see that it changed nothing."""
        before = self.guard.approvals.show(approval.id)
        with pytest.raises(GuardError) as refusal:
            self.decide(approval, decision, by, **more)
        assert self.guard.approvals.show(approval.id) == before
        return refusal.value

    def kinds(self, run: str = "r") -> list[str]:
        """Return what happened to approvals in the record of *run*."""
        events = [event.kind for event in self.guard.runs.events(run)]
        return [kind for kind in events if kind.startswith("approval.") or kind == "step.started"]


@pytest.fixture(name="desk")
def desk_of_ones_own(tmp_path: Path) -> Iterator[Desk]:
    """A desk on an empty store."""
    desk = Desk(tmp_path)
    yield desk
    desk.guard.close()


# Yes and no.


def test_an_approved_call_runs_once(desk: Desk) -> None:
    """A call waits, is approved, runs when it comes again, and is served again after that."""
    refund = desk.refund()
    approval = desk.ask(refund, "T-1")
    assert desk.world.effects == []
    assert desk.decide(approval) == "approved"
    assert desk.call(refund, "T-1") == "done T-1 75"
    assert desk.call(refund, "T-1") == "done T-1 75"
    assert desk.world.effects == ["T-1 75"]


def test_the_record_tells_of_an_approval_from_question_to_use(desk: Desk) -> None:
    """Asked, decided, used and started stand in the chain in this order, with the people."""
    refund = desk.refund(roles=["finance"])
    desk.decide(desk.ask(refund, "T-1"), roles=["finance"])
    desk.call(refund, "T-1")
    assert desk.kinds() == [
        "approval.requested",
        "approval.decided",
        "approval.used",
        "step.started",
    ]
    used = next(e for e in desk.guard.runs.events("r") if e.kind == "approval.used")
    assert used.data["people"] == ["dana"]


def test_a_waiting_call_asks_once(desk: Desk) -> None:
    """However often a waiting call comes, in whatever part of its run, people see one question."""
    refund = desk.refund()
    assert desk.ask(refund, "T-1").id == desk.ask(refund, "T-1").id
    assert len(desk.guard.approvals.list("pending")) == 1


def test_a_run_that_waits_for_people_is_waiting(desk: Desk) -> None:
    """A run that was left because a call needs a decision has neither failed nor succeeded."""
    desk.ask(desk.refund(), "T-1")
    assert desk.guard.runs.show("r").status == "waiting"


def test_a_rejected_call_never_runs(desk: Desk) -> None:
    """A no is told to the agent with its reason, each time the call comes again in its run."""
    refund = desk.refund()
    desk.decide(desk.ask(refund, "T-1"), "reject", reason="customer was paid")
    for _ in range(3):
        error = desk.call(refund, "T-1")
        assert isinstance(error, ApprovalRejected)
        assert "rejected by dana: customer was paid" in error.message
    assert desk.world.effects == []


def test_a_rejection_needs_a_reason(desk: Desk) -> None:
    """A no without a reason is refused, since the agent would only try again."""
    approval = desk.ask(desk.refund(), "T-1")
    assert "needs a reason" in desk.refused(approval, "reject", reason=" ").message


@pytest.mark.parametrize(("first", "second"), [("reject", YES), (YES, "reject"), (YES, "edit")])
def test_a_decision_is_final(desk: Desk, first: str, second: str) -> None:
    """What is decided is not decided again, whoever comes with another opinion."""
    approval = desk.ask(desk.refund(allow_edit=True), "T-1")
    desk.decide(approval, first)
    refusal = desk.refused(approval, second, by="erin", edits={"note": "x"})
    assert isinstance(refusal, DecisionRefused)
    assert "already" in refusal.message


def test_one_no_outweighs_an_earlier_yes(desk: Desk) -> None:
    """Where two people have to agree, one rejection ends it."""
    refund = desk.refund(quorum=2)
    approval = desk.ask(refund, "T-1")
    desk.decide(approval, by="dana")
    assert desk.decide(approval, "reject", by="erin") == "rejected"
    assert isinstance(desk.call(refund, "T-1"), ApprovalRejected)


def test_a_used_approval_takes_no_more_decisions(desk: Desk) -> None:
    """A decision that comes after the call has started is refused."""
    refund = desk.refund()
    approval = desk.ask(refund, "T-1")
    desk.decide(approval)
    desk.call(refund, "T-1")
    assert "used already" in desk.refused(approval, "reject", by="erin").message


def test_a_word_that_is_no_decision_is_refused(desk: Desk) -> None:
    """Only approve, reject and edit are decisions."""
    approval = desk.ask(desk.refund(), "T-1")
    assert "is not a decision" in desk.refused(approval, "yes").message


# Exactly these arguments, this contract, this policy.


def test_an_approval_is_for_its_payload_only(desk: Desk) -> None:
    """The same key with other arguments does not run under somebody else's approval."""
    refund = desk.refund()
    desk.decide(desk.ask(refund, "T-1", Decimal(75)))
    assert isinstance(desk.call(refund, "T-1", Decimal(7500)), IdempotencyConflict)
    assert desk.world.effects == []
    assert desk.call(refund, "T-1", Decimal(75)) == "done T-1 75"


def test_a_rejected_agent_may_come_with_a_better_payload(desk: Desk) -> None:
    """After a no, other arguments under the same key are asked anew, as soon as they come."""
    refund = desk.refund()
    first = desk.ask(refund, "T-1", Decimal(75))
    desk.decide(first, "reject", reason="at most 30")
    second = desk.ask(refund, "T-1", Decimal(30))
    assert second.generation == first.generation + 1
    desk.decide(second)
    assert desk.call(refund, "T-1", Decimal(30)) == "done T-1 30"


def test_a_rejected_payload_stays_rejected_after_another_one(desk: Desk) -> None:
    """Asking for something else in between does not wash a rejection off, in the same run."""
    asks = [True]
    refund = desk.refund(when=lambda **_: asks[0])
    for amount in (Decimal(75), Decimal(80)):
        desk.decide(desk.ask(refund, "T-1", amount), "reject")
    asks[0] = False
    assert isinstance(desk.call(refund, "T-1", Decimal(75)), ApprovalRejected)
    assert desk.world.effects == []


def test_a_new_contract_needs_a_new_approval(desk: Desk) -> None:
    """An approval given for one version of the tool does not let another version run."""
    desk.decide(desk.ask(desk.refund(version="1.0"), "T-1"))
    changed = desk.refund(version="1.1")
    again = desk.ask(changed, "T-1")
    assert desk.world.effects == []
    desk.decide(again)
    assert desk.call(changed, "T-1") == "done T-1 75"


def test_a_new_rule_needs_a_new_approval(desk: Desk) -> None:
    """An approval given under one rule of the tool does not hold under another."""
    desk.decide(desk.ask(desk.refund(), "T-1"))
    stricter = desk.refund(roles=["finance"])
    assert desk.ask(stricter, "T-1").roles == ("finance",)
    assert desk.world.effects == []


YAML = """
agent_run:
  workflow: w
  approvals:
    refund_usd_over: {limit}
"""


def test_a_new_policy_needs_a_new_approval(desk: Desk) -> None:
    """An approval given under one configuration does not hold under another."""

    @tool_contract(effect="write", facts={"refund_usd": "amount"})
    @idempotent(key="refund:{ticket}")
    def refund(ticket: str, amount: Decimal) -> str:
        return desk.world.happen(f"{ticket} {amount}")

    desk.guard.close()
    desk.guard = desk.open(YAML.format(limit=50))
    first = desk.ask(refund, "T-1", Decimal(75))
    desk.decide(first)
    desk.guard.close()
    desk.guard = desk.open(YAML.format(limit=60))
    second = desk.ask(refund, "T-1", Decimal(75))
    assert (second.rule, second.generation) == ("refund_usd over 60", 2)
    assert desk.guard.approvals.show(first.id).status == "superseded"
    assert desk.world.effects == []


def test_a_loosened_policy_does_not_decide_for_people(desk: Desk) -> None:
    """A call that waited for people waits for people still when the rule no longer asks."""
    refund = desk.refund(when="amount > 50")
    desk.ask(refund, "T-1")
    looser = desk.refund(when="amount > 500")
    assert desk.call(looser, "T-1").kind == "approval_required"
    desk.decide(desk.guard.approvals.list("pending")[0])
    assert desk.call(looser, "T-1").kind == "approval_required"
    assert desk.world.effects == []


# Who may decide.


def wide(name: str) -> str:
    """Spell *name* in full-width letters, which look alike and are others."""
    return "".join(chr(ord(letter) + 0xFEE0) for letter in name)


SPELLINGS = ("bob", " Bob ", "BOB", wide("bob"), "bo\u200bb", wide("Bob") + "\u00ad")


@pytest.mark.parametrize("by", SPELLINGS)
def test_the_person_it_is_done_for_may_not_approve(desk: Desk, by: str) -> None:
    """The agent's client cannot approve what the agent does for them, however they spell it."""
    refusal = desk.refused(desk.ask(desk.refund(), "T-1"), by=by)
    assert isinstance(refusal, PermissionDenied)
    assert "is the person this call is made for" in refusal.message


@pytest.mark.parametrize("by", ["support", "Support", wide("support")])
def test_whoever_asked_may_not_approve(desk: Desk, by: str) -> None:
    """The requester cannot approve its own call, however it spells itself."""
    assert "asked for this call" in desk.refused(desk.ask(desk.refund(), "T-1"), by=by).message


@pytest.mark.parametrize("by", ["", "  ", "agent:other", "Agent:support", "system:cron", "\u200b"])
def test_only_named_people_decide(desk: Desk, by: str) -> None:
    """Nobody, agents and machines have no vote."""
    refusal = desk.refused(desk.ask(desk.refund(), "T-1"), by=by)
    assert "needs the name of a person" in refusal.message


def test_the_requester_may_say_no(desk: Desk) -> None:
    """Whoever may not approve may still stop the call."""
    assert desk.decide(desk.ask(desk.refund(), "T-1"), "reject", by="bob") == "rejected"


def test_two_people_have_to_be_two(desk: Desk) -> None:
    """One person counts once, however often and in whatever spelling they come."""
    refund = desk.refund(quorum=2)
    approval = desk.ask(refund, "T-1")
    assert desk.decide(approval, by="Dana") == "pending"
    for by in ("Dana", "dana", " DANA", wide("dana"), "da\u200dna"):
        assert "a person counts once" in desk.refused(approval, by=by).message
    assert desk.call(refund, "T-1").kind == "approval_required"
    assert desk.decide(approval, by="erin") == "approved"
    assert desk.call(refund, "T-1") == "done T-1 75"


@pytest.mark.parametrize("decision", [YES, "reject"])
@pytest.mark.parametrize("roles", [[], ["sales"], "sales", ["FINANCE"]])
def test_a_decision_needs_the_role(desk: Desk, decision: str, roles: Any) -> None:
    """Who comes without one of the roles decides nothing, yes or no."""
    approval = desk.ask(desk.refund(roles=["finance", "legal"]), "T-1")
    refusal = desk.refused(approval, decision, roles=roles)
    assert "needs the role finance or legal" in refusal.message


def test_a_quorum_is_made_of_people_with_a_role(desk: Desk) -> None:
    """Each of two approvers needs one of the roles; it need not be the same one."""
    refund = desk.refund(roles=["finance", "legal"], quorum=2)
    approval = desk.ask(refund, "T-1")
    assert desk.decide(approval, by="dana", roles=["finance"]) == "pending"
    desk.refused(approval, by="carl", roles=["sales"])
    assert desk.decide(approval, by="erin", roles="legal") == "approved"
    votes = desk.guard.approvals.show(approval.id).decisions
    assert [(v.person, v.roles) for v in votes] == [("dana", ("finance",)), ("erin", ("legal",))]


# Time.


def test_an_approval_that_nobody_gave_in_time_expires(desk: Desk) -> None:
    """After its time a question can no longer be answered; a new call asks again."""
    refund = desk.refund(expires="2h")
    approval = desk.ask(refund, "T-1")
    desk.clock.advance(hours=2)
    with pytest.raises(ApprovalExpired):
        desk.decide(approval)
    assert isinstance(desk.call(refund, "T-1"), ApprovalExpired)
    assert desk.ask(refund, "T-1").generation == 2


def test_an_approval_that_nobody_used_in_time_expires(desk: Desk) -> None:
    """A yes does not last longer than its question."""
    refund = desk.refund(expires="2h")
    desk.decide(desk.ask(refund, "T-1"))
    desk.clock.advance(hours=1, minutes=59)
    other = desk.ask(refund, "T-2")
    desk.clock.advance(minutes=1)
    assert isinstance(desk.call(refund, "T-1"), ApprovalExpired)
    assert desk.guard.approvals.show(other.id).status == "pending"
    assert desk.world.effects == []


@pytest.mark.parametrize("in_a_new_process", [False, True])
def test_a_clock_that_is_set_back_revives_nothing(desk: Desk, *, in_a_new_process: bool) -> None:
    """What expired while somebody worked on the store stays so, whatever a clock says later."""
    refund = desk.refund(expires="2h")
    approval = desk.ask(refund, "T-1")
    desk.decide(approval)
    desk.clock.advance(hours=3)
    desk.call(desk.refund(), "T-2", run="another")
    desk.clock.set_back(hours=3)
    if in_a_new_process:
        desk.reopen()
    assert desk.guard.approvals.show(approval.id).status == "expired"
    assert isinstance(desk.call(refund, "T-1"), ApprovalExpired)
    assert desk.kinds().count("approval.expired") == 1
    assert desk.world.effects == []


def test_the_last_moment_counts(desk: Desk) -> None:
    """Until its time is over a question can be answered and its answer used."""
    refund = desk.refund(expires="2h")
    approval = desk.ask(refund, "T-1")
    desk.clock.advance(hours=2, microseconds=-1)
    desk.decide(approval)
    assert desk.call(refund, "T-1") == "done T-1 75"


# Edits.


def test_an_edited_call_runs_as_edited(desk: Desk) -> None:
    """What somebody edited and somebody else approved is what runs, and what is shown."""
    refund = desk.refund(allow_edit=True)
    approval = desk.ask(refund, "T-1")
    desk.decide(approval, "edit", by="erin", edits={"amount": "30", "note": "half"})
    shown = desk.guard.approvals.show(approval.id)
    assert shown.arguments == {"ticket": "T-1", "amount": "30", "note": "half"}
    assert (shown.generation, shown.edited_by) == (2, "erin")
    desk.decide(approval)
    assert desk.call(refund, "T-1") == "done T-1 30 half"
    assert desk.call(refund, "T-1") == "done T-1 30 half"
    assert desk.world.effects == ["T-1 30 half"]


def test_an_edited_call_is_paid_as_edited(desk: Desk) -> None:
    """Budgets are charged with what runs, and refuse it if it does not fit."""

    @tool_contract(effect="write")
    @idempotent(key="refund:{ticket}")
    @requires_approval(allow_edit=True)
    @budget(max_spend_usd="100", cost="amount")
    def refund(ticket: str, amount: Decimal) -> str:
        return desk.world.happen(f"{ticket} {amount}")

    for ticket, edited in (("T-1", "90"), ("T-2", "20"), ("T-3", "10")):
        approval = desk.ask(refund, ticket, Decimal(50))
        desk.decide(approval, "edit", by="erin", edits={"amount": edited})
        desk.decide(approval)
    assert desk.call(refund, "T-1", Decimal(50)) == "done T-1 90"
    assert isinstance(desk.call(refund, "T-2", Decimal(50)), BudgetExceeded)
    assert desk.call(refund, "T-3", Decimal(50)) == "done T-3 10"


def test_an_edit_voids_the_votes_before_it(desk: Desk) -> None:
    """Who approved the call before it was edited has not approved what it is now."""
    refund = desk.refund(allow_edit=True, quorum=2)
    approval = desk.ask(refund, "T-1")
    desk.decide(approval, by="dana")
    assert desk.decide(approval, "edit", by="erin", edits={"note": "x"}) == "pending"
    assert desk.guard.approvals.show(approval.id).decisions == ()
    assert desk.decide(approval, by="carl") == "pending"
    assert desk.decide(approval, by="dana") == "approved"


@pytest.mark.parametrize("by", ["erin", "ERIN", wide("erin")])
def test_an_editor_may_not_approve(desk: Desk, by: str) -> None:
    """Editing and approving are for two people."""
    approval = desk.ask(desk.refund(allow_edit=True), "T-1")
    desk.decide(approval, "edit", by="erin", edits={"note": "x"})
    assert "edited this call" in desk.refused(approval, by=by).message


def test_no_editor_may_approve_after_another_edit(desk: Desk) -> None:
    """Whoever had a hand in the arguments stays an editor when somebody edits after them."""
    approval = desk.ask(desk.refund(allow_edit=True), "T-1")
    desk.decide(approval, "edit", by="erin", edits={"amount": "9999"})
    desk.decide(approval, "edit", by="carl", edits={"note": "x"})
    for by in ("erin", "carl"):
        assert isinstance(desk.refused(approval, by=by), PermissionDenied)
    assert desk.decide(approval, by="dana") == "approved"


def test_a_decision_may_name_the_generation_it_saw(desk: Desk) -> None:
    """Who looked at the call before it was edited is told to look again."""
    approval = desk.ask(desk.refund(allow_edit=True), "T-1")
    desk.decide(approval, "edit", by="erin", edits={"note": "x"})
    assert "edited meanwhile" in desk.refused(approval, generation=1).message
    assert desk.decide(approval, generation=2) == "approved"


BAD_EDITS: dict[str, tuple[Mapping[str, Any] | None, str]] = {
    "a field of the key": ({"ticket": "T-9"}, "part of the idempotency key"),
    "a hidden argument": ({"iban": "DE00"}, "hidden"),
    "an unknown argument": ({"colour": "red"}, "has no argument 'colour'"),
    "a wrong type": ({"amount": "much"}, "does not fit"),
    "a wrong type inside": ({"lines": [{"sum": []}]}, "does not fit"),
    "nothing": ({}, "at least one"),
    "nothing given": (None, "at least one"),
}


@pytest.mark.parametrize("what", BAD_EDITS)
def test_what_must_not_be_edited_is_refused(desk: Desk, what: str) -> None:
    """Keys, hidden and unknown arguments and values of a wrong type are no edits."""

    @tool_contract(effect="write", sensitive=["iban"])
    @idempotent(key="refund:{ticket}")
    @requires_approval(allow_edit=True)
    def refund(ticket: str, amount: Decimal, iban: str, lines: list[dict[str, int]]) -> str:
        return desk.world.happen(ticket)

    approval = desk.ask(refund, "T-1", Decimal(75), "DE44500105175407324931", [{"sum": 1}])
    assert "DE44500105175407324931" not in str(approval)
    edits, sentence = BAD_EDITS[what]
    assert sentence in desk.refused(approval, "edit", by="erin", edits=edits).message


def test_edits_have_to_be_allowed(desk: Desk) -> None:
    """A tool that does not say so cannot be edited."""
    approval = desk.ask(desk.refund(), "T-1")
    refusal = desk.refused(approval, "edit", by="erin", edits={"note": "x"})
    assert "does not allow edits" in refusal.message


def test_rejected_edits_are_gone(desk: Desk) -> None:
    """What was edited into a rejected call never reaches another call under the same key."""
    asks, fails = [True], [True, False]

    @tool_contract(effect="write")
    @idempotent(key="refund:{ticket}")
    @requires_approval(when=lambda ticket, amount, note: asks[0], allow_edit=True)
    def refund(ticket: str, amount: int, note: str = "") -> str:
        desk.world.happen(f"{ticket} {amount} {note}".strip())
        if fails.pop(0):
            raise NoEffect("busy")
        return "ok"

    approval = desk.ask(refund, "T-1", 75)
    desk.decide(approval, "edit", by="erin", edits={"amount": 60, "note": "EDITED"})
    desk.decide(approval, "reject")
    asks[0] = False
    desk.decide(desk.ask(refund, "T-1", 30))
    assert isinstance(desk.call(refund, "T-1", 30), NoEffect)
    assert desk.call(refund, "T-1", 30) == "ok"
    assert desk.world.effects == ["T-1 30", "T-1 30"]


# When it asks.


@pytest.mark.parametrize("later", [False, None, 0])
def test_a_rule_that_changes_its_mind_changes_nothing(desk: Desk, later: Any) -> None:
    """Once a rule has asked, only people answer, whatever it says when the call comes again."""
    answers: list[Any] = [True, later, later, later, later]
    refund = desk.refund(when=lambda **_: answers.pop(0))
    approval = desk.ask(refund, "T-1")
    assert desk.ask(refund, "T-1").id == approval.id
    desk.decide(approval, "reject")
    assert isinstance(desk.call(refund, "T-1"), ApprovalRejected)
    assert desk.world.effects == []


def test_a_rule_that_did_not_ask_does_not_ask_later(desk: Desk) -> None:
    """A call that was allowed to start is not held up when it has to be tried again."""
    answers = [False, True]
    fails = [True, False]

    @tool_contract(effect="write")
    @idempotent(key="refund:{ticket}")
    @requires_approval(when=lambda ticket: answers.pop(0))
    def refund(ticket: str) -> str:
        if fails.pop(0):
            raise NoEffect("busy")
        return desk.world.happen(ticket)

    assert isinstance(desk.call(refund, "T-1"), NoEffect)
    assert desk.call(refund, "T-1") == "done T-1"


@pytest.mark.parametrize("answer", [True, None, 0, "", "no", [], 1 / 3])
def test_anything_but_a_plain_false_asks(desk: Desk, answer: Any) -> None:
    """Only False keeps people out of it."""
    assert desk.ask(desk.refund(when=lambda **_: answer), "T-1").status == "pending"


def test_a_plain_false_does_not_ask(desk: Desk) -> None:
    """A rule that says False lets the call run at once."""
    assert desk.call(desk.refund(when=lambda **_: False), "T-1") == "done T-1 75"
    assert desk.guard.approvals.list() == []


@pytest.mark.parametrize("error", [RuntimeError("down"), KeyError("x"), ZeroDivisionError()])
def test_a_rule_that_breaks_asks(desk: Desk, error: Exception) -> None:
    """Nobody is let through because the rule could not be evaluated."""

    def broken(**_: Any) -> bool:
        raise error

    assert desk.ask(desk.refund(when=broken), "T-1").status == "pending"


def test_a_rule_that_is_a_callable_holds_in_another_process(tmp_path: Path) -> None:
    """An approval under a callable rule is used by the process that resumes the run."""
    script = tmp_path / "agent.py"
    script.write_text(
        """
import sys
from agentguard import ApprovalRequired, Guard, idempotent, requires_approval, tool_contract

@tool_contract(effect="write")
@idempotent(key="refund:{ticket}")
@requires_approval(when=lambda ticket: True)
def refund(ticket: str) -> str:
    return "ran"

guard = Guard("sqlite:///" + sys.argv[1])
with guard.run("w", run_id="r"):
    try:
        print(refund("T-1"))
    except ApprovalRequired as error:
        guard.approvals.decide(error.approval.id, "approve", by="dana")
        print("asked")
"""
    )
    words = [sys.executable, str(script), str(tmp_path / "a.db")]
    said = [subprocess.run(words, check=True, capture_output=True, text=True) for _ in range(2)]
    assert [each.stdout for each in said] == ["asked\n", "ran\n"]


# One approval, one effect.


def test_a_retry_that_had_no_effect_keeps_its_approval(desk: Desk) -> None:
    """A call that is proven to have done nothing is tried again under the approval it had."""
    fails = [True, True, False]

    @tool_contract(effect="write")
    @idempotent(key="refund:{ticket}")
    @requires_approval(expires="2h")
    def refund(ticket: str) -> str:
        if fails.pop(0):
            raise NoEffect("busy")
        return desk.world.happen(ticket)

    desk.decide(desk.ask(refund, "T-1"))
    assert isinstance(desk.call(refund, "T-1"), NoEffect)
    assert isinstance(desk.call(refund, "T-1"), NoEffect)
    assert desk.call(refund, "T-1") == "done T-1"
    assert desk.kinds().count("approval.used") == 1


def test_a_retry_after_its_time_asks_again(desk: Desk) -> None:
    """A used approval is no blank cheque: after its time a retry needs a new one."""
    fails = [True, False]

    @tool_contract(effect="write")
    @idempotent(key="refund:{ticket}")
    @requires_approval(expires="2h")
    def refund(ticket: str) -> str:
        if fails.pop(0):
            raise NoEffect("busy")
        return desk.world.happen(ticket)

    first = desk.ask(refund, "T-1")
    desk.decide(first)
    assert isinstance(desk.call(refund, "T-1"), NoEffect)
    desk.clock.advance(hours=3)
    assert desk.ask(refund, "T-1").id != first.id
    assert desk.world.effects == []


def test_a_failure_for_good_ends_the_approval(desk: Desk) -> None:
    """A call that failed for good does not run again under the approval it used."""

    @tool_contract(effect="write")
    @idempotent(key="refund:{ticket}")
    @requires_approval()
    def refund(ticket: str) -> str:
        desk.world.happen(ticket)
        raise NoEffect("no such ticket", retryable=False)

    desk.decide(desk.ask(refund, "T-1"))
    assert isinstance(desk.call(refund, "T-1"), NoEffect)
    assert isinstance(desk.call(refund, "T-1"), ToolFailed)
    assert desk.world.effects == ["T-1"]


def test_another_effect_needs_its_own_approval(desk: Desk) -> None:
    """An approval for one ticket does nothing for the next one."""
    refund = desk.refund()
    first = desk.ask(refund, "T-1")
    desk.decide(first)
    assert desk.ask(refund, "T-2").id != first.id
    assert desk.call(refund, "T-1") == "done T-1 75"
    assert desk.ask(refund, "T-2").status == "pending"
    assert desk.world.effects == ["T-1 75"]


def test_many_callers_use_an_approval_once(desk: Desk) -> None:
    """Of callers that come at the same time under one approval, one starts the body."""
    refund = desk.refund()
    approval = desk.ask(refund, "T-1")
    desk.decide(approval)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: desk.call(refund, "T-1", run=f"r{n % 2}"), range(8)))
    assert results == ["done T-1 75"] * 8
    assert desk.world.effects == ["T-1 75"]


async def test_an_async_call_waits_for_people_too(desk: Desk) -> None:
    """An asynchronous tool is asked for, approved and started like any other."""

    @tool_contract(effect="write")
    @idempotent(key="refund:{ticket}")
    @requires_approval()
    async def refund(ticket: str) -> str:
        await asyncio.sleep(0)
        return desk.world.happen(ticket)

    async def call() -> str:
        async with desk.guard.run("w", run_id="r"):
            return await refund("T-1")

    with pytest.raises(ApprovalRequired) as asked:
        await call()
    desk.decide(asked.value.approval)
    assert await call() == "done T-1"


# Tenants, runs, reads, thresholds, names.


def test_an_approval_does_not_cross_tenants(desk: Desk) -> None:
    """What was approved in one tenant lets nothing start in another."""
    refund = desk.refund()
    approval = desk.ask(refund, "T-1", tenant="acme")
    desk.decide(approval)
    other = desk.ask(refund, "T-1", tenant="other")
    assert other.id != approval.id
    with pytest.raises(DecisionRefused, match="there is no approval"):
        desk.decide(other, tenant="acme")
    assert desk.world.effects == []


def test_one_intent_in_two_runs_is_one_question(desk: Desk) -> None:
    """Runs that want the same effect wait for the same answer, and it happens once."""
    refund = desk.refund()
    approval = desk.ask(refund, "T-1", run="r1")
    assert desk.ask(refund, "T-1", run="r2").id == approval.id
    desk.decide(approval)
    assert desk.call(refund, "T-1", run="r2") == "done T-1 75"
    assert desk.call(refund, "T-1", run="r1") == "done T-1 75"
    assert desk.world.effects == ["T-1 75"]


def test_nobody_runs_a_call_under_an_approval_of_their_own(desk: Desk) -> None:
    """Who approved for another run is asked about anew where the call would be made for them."""
    refund = desk.refund()
    approval = desk.ask(refund, "T-1", run="bobs")
    desk.decide(approval, by="dana")
    again = desk.ask(refund, "T-1", run="danas", subject="Dana")
    assert (again.id != approval.id, again.on_behalf_of) == (True, "Dana")
    assert desk.world.effects == []


def test_an_intent_of_one_run_is_not_approved_for_another(desk: Desk) -> None:
    """Where keys belong to a run, each run needs an approval of its own."""

    @tool_contract(effect="write")
    @idempotent(key="refund:{ticket}", scope="run")
    @requires_approval()
    def refund(ticket: str) -> str:
        return desk.world.happen(ticket)

    desk.decide(desk.ask(refund, "T-1", run="r1"))
    desk.ask(refund, "T-1", run="r2")
    assert desk.call(refund, "T-1", run="r1") == "done T-1"
    assert desk.world.effects == ["T-1"]


def test_nobody_gets_around_a_rejection_below_the_threshold(desk: Desk) -> None:
    """After a no, people are asked about the next try as well, even where no rule asks."""
    refund = desk.refund(when="amount > 50")
    desk.decide(desk.ask(refund, "T-1", Decimal(75)), "reject")
    assert desk.ask(refund, "T-1", Decimal(50)).generation == 2
    assert desk.world.effects == []


def test_a_new_run_may_ask_again_after_a_rejection(desk: Desk) -> None:
    """A no binds the run in which it was said; another run asks people anew."""
    refund = desk.refund()
    first = desk.ask(refund, "T-1", run="r1")
    desk.decide(first, "reject")
    assert isinstance(desk.call(refund, "T-1", run="r1"), ApprovalRejected)
    assert desk.ask(refund, "T-1", run="r2").id != first.id


def test_reads_can_need_approval(desk: Desk) -> None:
    """A read that people have to allow waits, runs once it is approved, and only then."""

    @tool_contract(effect="read")
    @requires_approval(roles=["privacy"])
    def medical_file(patient: str) -> str:
        return desk.world.happen(patient)

    approval = desk.ask(medical_file, "p-1")
    assert desk.world.effects == []
    desk.decide(approval, roles=["privacy"])
    assert desk.call(medical_file, "p-1") == "done p-1"
    assert desk.ask(medical_file, "p-2").id != approval.id
    assert desk.world.effects == ["p-1"]


@pytest.mark.parametrize(("amount", "asks"), [("50", False), ("50.01", True), ("-1", False)])
def test_a_threshold_of_the_configuration_asks(desk: Desk, amount: str, *, asks: bool) -> None:
    """`refund_usd_over` asks for amounts over it, and the tool's decorator says whom."""

    @tool_contract(effect="write", facts={"refund_usd": "amount"})
    @idempotent(key="refund:{ticket}")
    @requires_approval(when=lambda **_: False, roles=["finance"], quorum=2)
    def refund(ticket: str, amount: Decimal) -> str:
        return desk.world.happen(ticket)

    desk.guard.close()
    desk.guard = desk.open(YAML.format(limit=50))
    if not asks:
        assert desk.call(refund, "T-1", Decimal(amount)) == "done T-1"
        return
    approval = desk.ask(refund, "T-1", Decimal(amount))
    assert (approval.rule, approval.roles, approval.quorum) == (
        "refund_usd over 50",
        ("finance",),
        2,
    )


def test_a_beginning_of_an_id_names_an_approval(desk: Desk) -> None:
    """People type as much of an id as tells it apart; what fits several names none."""
    refund = desk.refund()
    first = desk.ask(refund, "T-1")
    desk.ask(refund, "T-2")
    beginning = first.id[:9]
    assert desk.guard.approvals.show(beginning).id == first.id
    assert desk.guard.approvals.decide(beginning, "approve", by="dana").status == "approved"
    for name in ("ap_", "%", "ap_%", ""):
        with pytest.raises(DecisionRefused):
            desk.guard.approvals.show(name)


def test_approvals_are_listed_by_how_they_stand(desk: Desk) -> None:
    """Waiting, decided, used and expired questions are told apart, the oldest first."""
    refund = desk.refund(expires="2h")
    old, yes, no, used = (desk.ask(refund, f"T-{n}") for n in range(4))
    desk.clock.advance(hours=1)
    new = desk.ask(refund, "T-9")
    for approval, decision in ((yes, YES), (no, "reject"), (used, YES)):
        desk.decide(approval, decision)
    desk.call(refund, "T-3")
    desk.clock.advance(hours=1)

    def listed(status: str | None) -> set[str]:
        return {approval.id for approval in desk.guard.approvals.list(status)}

    assert listed("pending") == {new.id}
    assert listed("expired") == {old.id, yes.id}
    assert (listed("rejected"), listed("used")) == ({no.id}, {used.id})
    assert desk.guard.approvals.list()[-1].id == new.id


def test_what_people_see_hides_what_is_sensitive(desk: Desk) -> None:
    """A question shows its arguments without the declared sensitive ones."""
    refund = desk.refund(sensitive=["note"])
    approval = desk.ask(refund, "T-1", Decimal(75), "pin 4711")
    assert approval.arguments == {"ticket": "T-1", "amount": "75", "note": "[hidden]"}


@pytest.mark.parametrize(
    "options", [{"quorum": 0}, {"quorum": 11}, {"expires": "8d"}, {"expires": "soon"}]
)
def test_a_rule_that_makes_no_sense_is_refused(desk: Desk, options: dict[str, Any]) -> None:
    """What cannot be decided by anybody, or only too late, is refused where it is declared."""
    with pytest.raises(ConfigurationError):
        desk.refund(**options)
