"""Staged autonomy: draft, propose, approve, auto; what is frozen, what is earned, and who executes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
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
    EffectInDoubt,
    Guard,
    GuardError,
    NoEffect,
    PermissionDenied,
    Principal,
    RunHalted,
    Verdict,
    VerificationFailed,
    budget,
    config,
    current_run,
    falls_back_to,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from agentguard.autonomy import Autonomy, Promotion, above, below, lower_bound, lowest
from agentguard.errors import ActionDrafted
from agentguard.model import Approval
from agentguard.testing import FakeClock
from tests.faults.processes import Gate, ended, fork
from tests.support import World

WHO = Principal(agent="support", subject="bob", tenant="acme")
STAGES = ("draft", "propose", "approve", "auto")
Tool = Callable[..., Any]


class Desk:
    """A guard on a store file, the world its tools change, and short words for what happens there."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self.clock: FakeClock | None = None if url else FakeClock()
        self.path = folder / "a.db"
        self.url = url or f"sqlite:///{self.path}"
        self.world = World(folder / "world.txt")
        self.guard = self.open()
        self.verdict: bool | Verdict = True
        self.failures: list[BaseException] = []

    def open(self, yaml: str = "") -> Guard:
        """Open the store as one more process would."""
        settings = config.loads(f"agent_run:\n  autonomy: {yaml}\n") if yaml else None
        return Guard(self.url, config=settings, clock=self.clock, principal=WHO)

    def configure(self, yaml: str) -> Guard:
        """Go on with this under `autonomy:`."""
        self.guard.close()
        self.guard = self.open(yaml)
        return self.guard

    def refund(self, *policies: Any, **contract: Any) -> Tool:
        """Make a tool that refunds."""

        def refund(ticket: str, amount: Decimal = Decimal(75)) -> str:
            if self.failures:
                raise self.failures.pop(0)
            return self.world.happen(f"{ticket} {amount}")

        tool: Any = tool_contract(effect="write", **contract)(refund)
        tool = idempotent(key="refund:{ticket}")(tool)
        for policy in policies:
            tool = policy(tool)
        return tool  # type: ignore[no-any-return]

    def verified(self) -> Tool:
        """Make a tool whose outcomes are verified, as `verdict` says."""
        return self.refund(verified_by(lambda _arguments, _result: self.verdict))

    def call(self, tool: Tool, *args: Any, run: str = "r", stage: str | None = None) -> Any:
        """Call *tool* in a run, and return its result or what it raises."""
        with self.guard.run("w", run_id=run, autonomy=stage):
            try:
                return tool(*args)
            except (GuardError, NoEffect) as error:
                return error

    def draft(self, tool: Tool, *args: Any, run: str = "r", stage: str = "draft") -> Approval:
        """Call *tool*, which is only written down, and return the draft."""
        error = self.call(tool, *args, run=run, stage=stage)
        assert isinstance(error, ActionDrafted), error
        found: Approval = error.approval
        return found

    def approve(self, draft: Approval, by: str = "dana", **more: Any) -> None:
        """Say yes."""
        self.guard.approvals.decide(draft.id, "approve", by=by, **more)

    def execute(self, draft: Approval, tool: Tool, by: str = "dana") -> Any:
        """Execute a draft, and return its result or what that raises."""
        try:
            return self.guard.approvals.execute(draft.id, by=by, tools=[tool])
        except (GuardError, NoEffect) as error:
            return error

    def wait(self, **time: int) -> None:
        """Let time pass."""
        assert self.clock is not None
        self.clock.advance(**time)

    def changes(self, run: str) -> list[dict[str, Any]]:
        """Return what the record of *run* says of stages."""
        events = self.guard.runs.events(run)
        return [dict(event.data) for event in events if event.kind == "autonomy.changed"]


@pytest.fixture(name="desk")
def desk_of_ones_own(tmp_path: Path) -> Iterator[Desk]:
    """A desk on an empty store."""
    desk = Desk(tmp_path)
    yield desk
    desk.guard.close()


@pytest.fixture(name="busy", params=["sqlite", "postgres"])
def desk_of_many(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    """A desk on an empty store of either kind, at which many work at once, in real time."""
    file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'a.db'}" if file else request.getfixturevalue("postgres_url")
    desk = Desk(tmp_path, url)
    yield desk
    desk.guard.close()


# What is said, and what counts of it.


def test_the_lowest_stage_counts() -> None:
    """Of several stages the lowest counts, and of none `auto`."""
    assert lowest("auto", "propose", None, "approve") == "propose"
    assert lowest(None) == lowest() == "auto"


def test_stages_move_one_at_a_time() -> None:
    """Up ends at the top that is allowed, down at the floor."""
    assert [above(stage, "approve") for stage in STAGES] == [
        "propose",
        "approve",
        "approve",
        "auto",
    ]
    assert [below(stage, "propose") for stage in STAGES] == [
        "draft",
        "propose",
        "propose",
        "approve",
    ]


@pytest.mark.parametrize(
    ("said", "write", "read"),
    [
        (Autonomy(), "auto", "auto"),
        (Autonomy(run="draft"), "draft", "auto"),
        (Autonomy(default="approve", run="auto"), "approve", "auto"),
        (Autonomy(default="draft", tools={"t": "approve"}), "approve", "approve"),
        (Autonomy(tools={"other": "draft"}), "auto", "auto"),
        (Autonomy(default="approve", classes={"write": "draft"}), "draft", "auto"),
        (Autonomy(default="auto", classes={"read": "propose"}), "auto", "propose"),
        (Autonomy(default="draft", promote=Promotion(9, Decimal("0.5"))), "auto", "auto"),
        (
            Autonomy(default="draft", promote=Promotion(9, Decimal("0.5"), "approve")),
            "approve",
            "auto",
        ),
        (Autonomy(promote=Promotion(9, Decimal("0.5")), run="propose"), "propose", "auto"),
    ],
)
def test_run_file_and_class_cap_each_other(said: Autonomy, write: str, read: str) -> None:
    """A call has at the most the lowest of what its run, its tool and its class have."""
    assert (said.ceiling("t", "write"), said.ceiling("t", "read")) == (write, read)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("file", STAGES)
def test_a_run_gets_no_more_than_its_file(desk: Desk, stage: str, file: str) -> None:
    """Whoever enters a run can lower the stage of the configuration, and not raise it."""
    desk.configure(file)
    said = desk.call(desk.refund(), "T-1", stage=stage)
    kinds = {
        "draft": ActionDrafted,
        "propose": ActionDrafted,
        "approve": ApprovalRequired,
        "auto": str,
    }
    chosen = lowest(stage, file)
    assert isinstance(said, kinds[chosen])
    assert desk.world.effects == (["T-1 75"] if chosen == "auto" else [])


def test_an_unknown_stage_is_refused(desk: Desk) -> None:
    """A stage that does not exist is no run, and the sentence names those that do."""
    with pytest.raises(
        ConfigurationError, match="autonomy='full' is no stage; there are draft, propose"
    ):
        desk.guard.run("w", autonomy="full")


def test_a_stage_of_a_tool_that_is_not_there_is_a_problem(desk: Desk) -> None:
    """A name that was misspelled in the file would let its tool go further; the check says so."""
    desk.configure("{default: auto, tools: {refnd: draft}}")
    [problem] = desk.guard.check([desk.refund()])
    assert "autonomy.tools.refnd is the stage of a tool that is not among those bound" in problem
    assert "did you mean 'refund'?" in problem


def test_a_forbidden_tool_stays_forbidden(desk: Desk) -> None:
    """No stage lets an agent draft what it may never do."""

    @tool_contract(effect="forbidden")
    def drop() -> None:
        desk.world.happen("dropped")

    assert desk.call(drop, stage="draft").kind == "forbidden_action"
    assert desk.guard.approvals.list() == []


# Drafts and proposals.


def test_a_draft_is_written_down_and_does_not_happen(desk: Desk) -> None:
    """The agent is told what became of its call, people see it, and nothing ran."""
    error = desk.call(desk.refund(), "T-1", stage="draft")
    assert isinstance(error, ActionDrafted)
    assert (error.stage, error.approval.status, error.approval.rule) == (
        "draft",
        "pending",
        "autonomy: draft",
    )
    assert error.approval.arguments == {"ticket": "T-1", "amount": "75"}
    assert f"agentguard approvals execute {error.approval.id}" in error.message
    assert desk.world.effects == []
    assert [approval.stage for approval in desk.guard.approvals.list("pending")] == ["draft"]


def test_a_run_goes_on_after_a_draft(desk: Desk) -> None:
    """A run with drafts is not waiting for anybody, and ends as it would without."""
    desk.draft(desk.refund(), "T-1")
    assert desk.guard.runs.show("r").status == "succeeded"


def test_a_run_with_a_draft_and_a_question_waits(desk: Desk) -> None:
    """What waits for people still makes its run wait."""
    desk.configure("{default: draft, tools: {refund: approve}}")
    assert isinstance(desk.call(desk.refund(), "T-1"), ApprovalRequired)
    assert desk.guard.runs.show("r").status == "waiting"


def test_the_same_call_is_the_same_draft(desk: Desk) -> None:
    """However often the call comes, in whatever part of its run, there is one draft."""
    refund = desk.refund()
    with desk.guard.run("w", run_id="r", autonomy="draft"):
        for _ in range(2):
            with pytest.raises(ActionDrafted):
                refund("T-1")
    first = desk.guard.approvals.list("pending")
    assert desk.draft(refund, "T-1").id == first[0].id
    assert len(desk.guard.approvals.list()) == 1


def test_an_async_tool_is_drafted_too(desk: Desk) -> None:
    """Async tools have the same stages, and a person executes their drafts from a loop or without."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    async def pay(ticket: str) -> str:
        await asyncio.sleep(0)
        return desk.world.happen(ticket)

    async def drafted(ticket: str) -> Approval:
        async with desk.guard.run("w", run_id="r", autonomy="draft"):
            with pytest.raises(ActionDrafted) as caught:
                await pay(ticket)
        found: Approval = caught.value.approval
        return found

    one, two = asyncio.run(drafted("T-1")), asyncio.run(drafted("T-2"))
    desk.approve(one)
    desk.approve(two)
    assert desk.execute(one, pay) == "done T-1"
    executed = desk.guard.approvals.aexecute(two.id, by="dana", tools=[pay])
    assert asyncio.run(executed) == "done T-2"
    assert desk.world.effects == ["T-1", "T-2"]


def test_execute_on_a_running_loop_says_what_to_await(desk: Desk) -> None:
    """An async tool cannot be executed inside a loop without waiting, and nothing has started."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    async def pay(ticket: str) -> str:
        return desk.world.happen(ticket)

    async def both() -> str:
        async with desk.guard.run("w", autonomy="draft"):
            with pytest.raises(ActionDrafted) as caught:
                await pay("T-1")
        desk.approve(caught.value.approval)
        with pytest.raises(ConfigurationError, match=r"await guard\.approvals\.aexecute"):
            desk.guard.approvals.execute(caught.value.approval.id, by="dana", tools=[pay])
        assert desk.world.effects == []
        result: str = await desk.guard.approvals.aexecute(
            caught.value.approval.id, by="dana", tools=[pay]
        )
        return result

    assert asyncio.run(both()) == "done T-1"


def test_a_proposal_shows_what_is_and_what_would_change(desk: Desk) -> None:
    """A proposal carries what the tool's reader sees now, and the difference that the call makes."""
    refund = desk.refund(
        evidence=lambda arguments: {"balance": 100, "ticket": arguments["ticket"]},
        preview=lambda arguments, before: {
            **before,
            "balance": before["balance"] - arguments["amount"],
        },
    )
    proposal = desk.draft(refund, "T-1", stage="propose")
    assert proposal.stage == "propose"
    assert desk.guard.approvals.proposal(proposal.id) == {
        "evidence": {"seen": {"balance": 100, "ticket": "T-1"}},
        "diff": {"fields": {"balance": [100, "25"]}},
    }


def test_evidence_of_a_proposal_can_be_erased(desk: Desk) -> None:
    """What the reader saw stands beside the chain, bound to it, and the chain stays whole."""
    desk.draft(desk.refund(evidence=lambda _arguments: "secret"), "T-1", stage="propose")
    requested = next(e for e in desk.guard.runs.events("r") if e.kind == "approval.requested")
    assert requested.content == {"evidence": {"seen": "secret"}}
    assert "secret" not in str(requested.data)
    assert desk.guard.runs.verify("r") is None


def test_a_proposal_without_a_reader_is_a_proposal(desk: Desk) -> None:
    """A tool that nobody can look behind is proposed all the same, with nothing to show."""
    proposal = desk.draft(desk.refund(), "T-1", stage="propose")
    assert desk.guard.approvals.proposal(proposal.id) in (None, {})


def test_a_broken_reader_is_told_and_stops_no_proposal(desk: Desk) -> None:
    """A proposal whose evidence could not be read says so; nothing was written by it."""

    def broken(_arguments: Any) -> Any:
        raise TimeoutError("no answer")

    proposal = desk.draft(desk.refund(evidence=broken), "T-1", stage="propose")
    assert desk.guard.approvals.proposal(proposal.id) == {
        "evidence": {"failed": "TimeoutError: no answer"}
    }


def test_a_preview_needs_evidence() -> None:
    """What would change cannot be told without what is."""
    with pytest.raises(ConfigurationError, match="preview is told what evidence has seen"):

        @tool_contract(effect="write", preview=lambda _arguments, before: before)
        def pay() -> None: ...


def test_a_proposal_is_read_only_when_it_is_made(desk: Desk) -> None:
    """The reader is asked once a proposal, not for its repeats."""
    seen: list[str] = []

    def reader(arguments: Any) -> str:
        seen.append(arguments["ticket"])
        return "seen"

    refund = desk.refund(evidence=reader)
    for _ in range(3):
        desk.draft(refund, "T-1", stage="propose")
    assert seen == ["T-1"]


def test_reads_run_as_usual_under_draft(desk: Desk) -> None:
    """An agent that may only draft can still look."""

    @tool_contract(effect="read")
    def look(ticket: str) -> str:
        return desk.world.happen(ticket)

    assert desk.call(look, "T-1", stage="draft") == "done T-1"


@pytest.mark.parametrize(
    ("yaml", "kind"),
    [
        ("{classes: {read: approve}}", ApprovalRequired),
        ("{classes: {read: draft}}", ActionDrafted),
        ("{tools: {look: approve}}", ApprovalRequired),
    ],
)
def test_reads_have_the_stage_that_names_them(
    desk: Desk, yaml: str, kind: type[GuardError]
) -> None:
    """Where the configuration names reads, or this one, people decide on them, too; once."""
    desk.configure(yaml)

    @tool_contract(effect="read")
    def look(ticket: str) -> str:
        return desk.world.happen(ticket)

    first, again = desk.call(look, "T-1"), desk.call(look, "T-1")
    assert (type(first), type(again)) == (kind, kind)
    assert first.approval.id == again.approval.id
    assert desk.world.effects == []


def test_a_read_that_was_approved_runs(desk: Desk) -> None:
    """A read that waited for people runs when they have said yes and it comes again."""
    desk.configure("{classes: {read: approve}}")

    @tool_contract(effect="read")
    def look(ticket: str) -> str:
        return desk.world.happen(ticket)

    desk.approve(desk.call(look, "T-1").approval)
    assert desk.call(look, "T-1") == "done T-1"


# Approve.


def test_approve_asks_whom_the_tool_names(desk: Desk) -> None:
    """A stage that asks people asks those, and as many, as the tool's own approval says."""
    who = requires_approval(
        when="amount > 100", roles=["finance"], quorum=2, expires="2h", allow_edit=True
    )
    found = desk.call(desk.refund(who), "T-1", stage="approve").approval
    assert (found.rule, found.roles, found.quorum) == ("autonomy: approve", ("finance",), 2)
    assert found.allow_edit
    assert (found.expires_at - found.created_at).total_seconds() == 7200


def test_the_tools_own_rule_is_what_people_see(desk: Desk) -> None:
    """Where the tool's rule asks by itself, that is the reason people are told."""
    found = desk.call(desk.refund(requires_approval(when="amount > 50")), "T-1", stage="approve")
    assert found.approval.rule == "amount > 50"


def test_a_draft_keeps_to_the_tools_approvers(desk: Desk) -> None:
    """Lower than asking is no way around who may say yes."""
    draft = desk.draft(desk.refund(requires_approval(roles=["finance"])), "T-1")
    with pytest.raises(PermissionDenied, match="needs the role finance"):
        desk.approve(draft)


def test_an_approved_call_runs_when_the_run_goes_on(desk: Desk) -> None:
    """At `approve` the agent makes the call itself once somebody has said yes."""
    refund = desk.refund()
    desk.approve(desk.call(refund, "T-1", stage="approve").approval)
    assert desk.call(refund, "T-1", stage="approve") == "done T-1 75"
    assert desk.world.effects == ["T-1 75"]


# Execute.


def test_a_person_executes_exactly_what_was_drafted(desk: Desk) -> None:
    """The recorded call runs once, under its step and key, and its result is on record."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1", Decimal("12.75"))
    desk.approve(draft)
    assert desk.execute(draft, refund, by="erin") == "done T-1 12.75"
    assert desk.world.effects == ["T-1 12.75"]
    effect = desk.guard.effects.show(draft.effect_id)
    assert (effect.state, effect.run_id, effect.step) == ("succeeded", "r", draft.step)
    assert desk.guard.approvals.show(draft.id).status == "used"


def test_the_record_names_who_executed(desk: Desk) -> None:
    """Start and end of an executed draft are the person's, in the run of the agent that drafted it."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1")
    desk.approve(draft)
    desk.execute(draft, refund, by="erin")
    told = [
        (e.kind, e.actor, e.step) for e in desk.guard.runs.events("r") if e.actor.startswith("p")
    ]
    assert told == [
        ("approval.decided", "person:dana", 1),
        ("approval.used", "person:erin", 1),
        ("step.started", "person:erin", 1),
        ("step.finished", "person:erin", 1),
    ]
    assert desk.guard.runs.verify("r") is None
    assert desk.guard.runs.show("r").status == "succeeded"


def test_an_executed_draft_is_served_again(desk: Desk) -> None:
    """Executed once more, and called again by the agent, it gives its recorded result."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1")
    desk.approve(draft)
    for _ in range(2):
        assert desk.execute(draft, refund) == "done T-1 75"
    assert desk.call(refund, "T-1", stage="draft") == "done T-1 75"
    assert desk.world.effects == ["T-1 75"]


def test_the_body_of_a_draft_sees_its_run(desk: Desk) -> None:
    """A tool that is executed by a person finds the run, the key and the agent it was drafted by."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    def pay(ticket: str) -> list[str]:
        run = current_run()
        desk.world.happen(ticket)
        return [run.id, run.call.idempotency_key, run.principal.agent, str(run.call.step)]

    draft = desk.draft(pay, "T-1")
    desk.approve(draft)
    assert desk.execute(draft, pay) == ["r", draft.effect_id, "support", "1"]


def test_a_draft_that_nobody_approved_is_not_executed(desk: Desk) -> None:
    """A pending draft cannot be executed, by whomever; nothing changed."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1")
    error = desk.execute(draft, refund)
    assert isinstance(error, DecisionRefused)
    assert error.message.startswith(f"{draft.id} is pending, so it cannot be executed")
    assert desk.world.effects == []
    assert desk.guard.approvals.show(draft.id) == draft


def test_half_a_quorum_is_not_enough_to_execute(desk: Desk) -> None:
    """A draft that needs two people is not executed after one."""
    refund = desk.refund(requires_approval(quorum=2))
    draft = desk.draft(refund, "T-1")
    desk.approve(draft)
    assert "is pending" in desk.execute(draft, refund).message
    desk.approve(draft, by="erin")
    assert desk.execute(draft, refund) == "done T-1 75"


def test_a_rejected_draft_is_not_executed(desk: Desk) -> None:
    """A no is a no for people and for the agent."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1")
    desk.guard.approvals.decide(draft.id, "reject", by="dana", reason="too much")
    assert isinstance(desk.execute(draft, refund), ApprovalRejected)
    assert isinstance(desk.call(refund, "T-1", stage="draft"), ApprovalRejected)
    assert desk.world.effects == []


def test_an_expired_draft_is_not_executed(desk: Desk) -> None:
    """A yes that has become too old is none; nothing is asked for by the way."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1")
    desk.approve(draft)
    desk.wait(days=2)
    assert isinstance(desk.execute(draft, refund), ApprovalExpired)
    assert len(desk.guard.approvals.list()) == 1
    assert desk.world.effects == []


def test_the_agent_never_starts_its_draft(desk: Desk) -> None:
    """Approved, and even at a higher stage, the agent's own call stays a draft."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1")
    desk.approve(draft)
    assert desk.draft(refund, "T-1", stage="auto").id == draft.id
    assert desk.world.effects == []


@pytest.mark.parametrize("by", ["support", "SUPPORT ", "agent:support", "system:cron", " "])
def test_who_drafted_does_not_execute(desk: Desk, by: str) -> None:
    """A draft is executed by a person who is not the agent, under whatever name."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1")
    desk.approve(draft)
    assert isinstance(desk.execute(draft, refund, by=by), PermissionDenied)
    assert desk.world.effects == []


def test_edited_arguments_are_what_runs(desk: Desk) -> None:
    """A draft that somebody edited and somebody else approved runs with the edit."""
    refund = desk.refund(requires_approval(allow_edit=True))
    draft = desk.draft(refund, "T-1")
    desk.guard.approvals.decide(draft.id, "edit", by="erin", edits={"amount": "60"})
    desk.approve(draft)
    assert desk.execute(draft, refund) == "done T-1 60"
    assert desk.world.effects == ["T-1 60"]


def test_an_argument_in_the_key_cannot_be_edited(desk: Desk) -> None:
    """An edit of a draft cannot make it another effect."""
    draft = desk.draft(desk.refund(requires_approval(when="amount > 100", allow_edit=True)), "T-1")
    with pytest.raises(DecisionRefused, match="part of the idempotency key"):
        desk.guard.approvals.decide(draft.id, "edit", by="erin", edits={"ticket": "T-2"})


def test_a_draft_with_a_secret_says_so_and_is_not_executed(desk: Desk) -> None:
    """What is not on record cannot be run from it; agent and person are told."""

    @tool_contract(effect="write", sensitive=["card"])
    @idempotent(key="pay:{ticket}")
    def pay(ticket: str, card: str) -> str:
        return desk.world.happen(f"{ticket} {card}")

    error = desk.call(pay, "T-1", "4111-1111", stage="draft")
    assert "its sensitive arguments are not on record" in error.message
    desk.approve(error.approval)
    refused = desk.execute(error.approval, pay)
    assert isinstance(refused, DecisionRefused)
    assert "its sensitive argument card is not on record" in refused.message
    assert desk.world.effects == []


def test_the_tool_has_to_be_given(desk: Desk) -> None:
    """A person who executes names the code; the refusal says which tool is missing."""

    @tool_contract(effect="read")
    def look() -> None: ...

    draft = desk.draft(desk.refund(), "T-1")
    desk.approve(draft)
    error = desk.execute(draft, look)
    assert "refund is not among the tools (look)" in error.message


def test_another_contract_is_not_what_was_approved(desk: Desk) -> None:
    """A tool that has changed since is not executed under the old yes, and nothing new is asked."""
    draft = desk.draft(desk.refund(), "T-1")
    desk.approve(draft)
    error = desk.execute(draft, desk.refund(version="1.1"))
    assert isinstance(error, DecisionRefused)
    assert "is not what would run now" in error.message
    assert [approval.id for approval in desk.guard.approvals.list()] == [draft.id]


def test_an_ordinary_approval_is_no_draft(desk: Desk) -> None:
    """What the agent makes itself once approved is not executed beside it."""
    refund = desk.refund(requires_approval())
    found = desk.call(refund, "T-1").approval
    desk.approve(found)
    assert f"run {found.run_id} makes the call itself" in desk.execute(found, refund).message


def test_a_draft_in_a_cancelled_run_is_not_executed(desk: Desk) -> None:
    """Stopped for good is stopped for people, too."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1")
    desk.approve(draft)
    desk.guard.runs.cancel("r", by="dana", reason="wrong customer")
    assert isinstance(desk.execute(draft, refund), RunHalted)
    assert desk.world.effects == []


def test_a_kill_switch_stops_executions(desk: Desk) -> None:
    """No start passes a switch, whoever makes it."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1")
    desk.approve(draft)
    desk.guard.kill(tool="refund", by="dana", reason="incident")
    assert isinstance(desk.execute(draft, refund), RunHalted)
    desk.guard.kill(tool="refund", by="dana", reason="over", lift=True)
    assert desk.execute(draft, refund) == "done T-1 75"


def test_an_execution_counts_against_the_budget(desk: Desk) -> None:
    """A person's execution spends the tool's money, and stops where there is none left."""
    refund = desk.refund(budget(cost="amount", max_spend_usd="100"))
    one, two = desk.draft(refund, "T-1"), desk.draft(refund, "T-2")
    desk.approve(one)
    desk.approve(two)
    assert desk.execute(one, refund) == "done T-1 75"
    assert isinstance(desk.execute(two, refund), BudgetExceeded)
    assert desk.world.effects == ["T-1 75"]


def test_a_failed_execution_can_be_made_again_by_people_only(desk: Desk) -> None:
    """Known to have done nothing, a draft is executed again; the agent still cannot."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1")
    desk.approve(draft)
    desk.failures.append(NoEffect("busy"))
    assert isinstance(desk.execute(draft, refund), NoEffect)
    assert desk.draft(refund, "T-1", stage="auto").id == draft.id
    assert desk.execute(draft, refund) == "done T-1 75"


def test_an_execution_in_doubt_is_told(desk: Desk) -> None:
    """Nobody executes again what may have happened."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1")
    desk.approve(draft)
    desk.failures.append(RuntimeError("connection reset"))
    assert isinstance(desk.execute(draft, refund), EffectInDoubt)
    assert isinstance(desk.execute(draft, refund), EffectInDoubt)
    assert isinstance(desk.call(refund, "T-1", stage="auto"), EffectInDoubt)


def test_a_backend_that_drops_repeats_is_not_asked_again_by_the_agent(desk: Desk) -> None:
    """A doubt that may be ended by starting again is ended by a person where a person started it."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}", on_doubt="retry_same_key", downstream_dedupe="24h")
    def pay(ticket: str) -> str:
        if desk.failures:
            raise desk.failures.pop(0)
        return desk.world.happen(ticket)

    draft = desk.draft(pay, "T-1")
    desk.approve(draft)
    desk.failures.append(RuntimeError("connection reset"))
    assert isinstance(desk.execute(draft, pay), EffectInDoubt)
    assert isinstance(desk.call(pay, "T-1", stage="auto"), EffectInDoubt)
    assert desk.execute(draft, pay) == "done T-1"


def test_a_call_of_the_models_is_executed_as_that_call(desk: Desk) -> None:
    """A tool whose effect is one call of the model is executed once, under that call's key."""

    @tool_contract(effect="write")
    @idempotent(per="call")
    def note(text: str) -> str:
        return desk.world.happen(text)

    with (
        desk.guard.run("w", run_id="r", autonomy="draft") as run,
        run.tool_call("call-1"),
        pytest.raises(ActionDrafted) as caught,
    ):
        note("hello")
    desk.approve(caught.value.approval)
    assert desk.execute(caught.value.approval, note) == "done hello"
    with desk.guard.run("w", run_id="r") as run, run.tool_call("call-1"):
        assert note("hello") == "done hello"
    assert desk.world.effects == ["hello"]


def test_a_draft_of_a_run_that_has_ended_safely_is_executed(desk: Desk) -> None:
    """An ending closes the write path of the agent, not that of people."""
    refund = desk.refund()

    @tool_contract(effect="write")
    @idempotent(key="email:{ticket}")
    @budget(max_calls=0)
    @falls_back_to("draft")
    def email(ticket: str) -> str:
        return desk.world.happen(f"email {ticket}")

    desk.configure("{tools: {refund: draft}}")
    draft = desk.draft(refund, "T-1", stage="auto")
    assert desk.call(email, "T-1").kind == "fell_back"
    assert isinstance(desk.call(refund, "T-2"), RunHalted)
    desk.approve(draft)
    assert desk.execute(draft, refund) == "done T-1 75"


def test_a_tool_in_the_stores_database_is_executed_exactly_once(desk: Desk) -> None:
    """Where start, body and end are one transaction, so they are for a person."""

    @tool_contract(effect="write")
    @idempotent(key="note:{text}", same_database=True)
    def note(text: str) -> str:
        connection = current_run().call.connection
        connection.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")
        connection.execute("INSERT INTO notes VALUES (?)", (text,))
        return f"noted {text}"

    draft = desk.draft(note, "hello", stage="propose")
    desk.approve(draft)
    for _ in range(2):
        assert desk.execute(draft, note) == "noted hello"
    with contextlib.closing(sqlite3.connect(desk.path)) as connection:
        assert connection.execute("SELECT text FROM notes").fetchall() == [("hello",)]


def test_a_method_is_executed_on_the_object_that_is_given(desk: Desk) -> None:
    """The record holds arguments, not objects: who executes brings the service."""

    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @tool_contract(effect="write")
        @idempotent(key="ship:{order}")
        def ship(self, order: str) -> str:
            return desk.world.happen(f"{self.name} {order}")

    draft = desk.draft(Shop("old").ship, "O-1")
    desk.approve(draft)
    assert desk.execute(draft, Shop("new").ship) == "done new O-1"


def test_a_tool_with_a_schema_is_executed(desk: Desk) -> None:
    """Tools that come with JSON Schema are drafted and executed by it."""

    def send(**arguments: Any) -> str:
        return desk.world.happen(json.dumps(arguments, sort_keys=True))

    fields = {"to": {"type": "string"}, "lines": {"type": "array"}}
    schema = {"type": "object", "properties": fields}
    tool = desk.guard.protect(
        send, name="send", effect="write", key="send:{to}", input_schema=schema
    )
    with desk.guard.run("w", autonomy="draft"), pytest.raises(ActionDrafted) as caught:
        tool(to="kim", lines=[1, {"a": None}])
    desk.approve(caught.value.approval)
    desk.execute(caught.value.approval, tool)
    assert desk.world.effects == ['{"lines": [1, {"a": null}], "to": "kim"}']


def test_a_call_inside_a_drafted_body_has_its_own_stage(desk: Desk) -> None:
    """Executing one draft does not let what its body calls go any further."""
    refund = desk.refund()

    @tool_contract(effect="write")
    @idempotent(key="close:{ticket}")
    def close(ticket: str) -> str:
        try:
            return str(refund(ticket))
        except ActionDrafted:
            return "closed, and a refund is drafted"

    desk.configure("draft")
    draft = desk.draft(close, "T-1", stage="auto")
    desk.approve(draft)
    assert desk.execute(draft, close) == "closed, and a refund is drafted"
    assert desk.world.effects == []


def test_two_processes_that_execute_one_draft_make_one_effect(desk: Desk, tmp_path: Path) -> None:
    """However many people press the button at once, it happens once and all get its result."""
    refund = desk.refund()
    drafts = [desk.draft(refund, f"T-{number}") for number in range(5)]
    for draft in drafts:
        desk.approve(draft)
    gate, ready = Gate(), Gate()

    def press(number: int) -> None:
        own = Desk(tmp_path)
        again = own.refund()
        ready.open()
        gate.wait()
        found = [own.execute(draft, again, by=f"person-{number}") for draft in drafts]
        assert found == [f"done T-{n} 75" for n in range(5)], found

    children = [fork(press, number) for number in range(4)]
    ready.wait(4)
    gate.open(4)
    assert [ended(child) for child in children] == [0, 0, 0, 0]
    assert sorted(desk.world.effects) == [f"T-{number} 75" for number in range(5)]


# Frozen at the first decision.


@pytest.mark.parametrize("later", ["propose", "approve", "auto"])
def test_a_draft_stays_a_draft(desk: Desk, later: str) -> None:
    """What was drafted stays so on resume, whatever the stage says by then."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1")
    found = desk.draft(refund, "T-1", stage=later)
    assert (found.id, found.stage) == (draft.id, "draft")


@pytest.mark.parametrize("later", ["draft", "propose", "auto"])
def test_a_question_stays_a_question(desk: Desk, later: str) -> None:
    """What was asked stays asked, and runs once it is approved, also if the stage has fallen."""
    refund = desk.refund()
    asked = desk.call(refund, "T-1", stage="approve").approval
    again = desk.call(refund, "T-1", stage=later)
    assert isinstance(again, ApprovalRequired)
    assert again.approval.id == asked.id
    desk.approve(asked)
    assert desk.call(refund, "T-1", stage=later) == "done T-1 75"


def test_what_was_allowed_is_retried_without_asking(desk: Desk) -> None:
    """A call that was allowed and did nothing is made again, though the stage has fallen since."""
    refund = desk.refund()
    desk.failures.append(NoEffect("busy"))
    assert isinstance(desk.call(refund, "T-1"), NoEffect)
    assert desk.call(refund, "T-1", stage="draft") == "done T-1 75"


def test_what_one_run_was_allowed_another_is_not(desk: Desk) -> None:
    """A key whose call failed in one run is decided on anew in another."""
    refund = desk.refund()
    desk.failures.append(NoEffect("busy"))
    assert isinstance(desk.call(refund, "T-1"), NoEffect)
    assert isinstance(desk.call(refund, "T-1", run="other", stage="draft"), ActionDrafted)
    assert desk.world.effects == []


def test_a_draft_that_is_asked_about_anew_is_a_draft(desk: Desk) -> None:
    """Nobody gets above a draft by letting its time run out."""
    refund = desk.refund()
    draft = desk.draft(refund, "T-1")
    desk.wait(days=2)
    assert isinstance(desk.call(refund, "T-1", stage="auto"), ApprovalExpired)
    again = desk.draft(refund, "T-1", stage="auto")
    assert (again.stage, again.id == draft.id) == ("draft", False)


# Pins and incidents.


def pin(desk: Desk, stage: str, tool: str = "refund") -> None:
    """Pin a tool as an operator does."""
    desk.guard.pin(tool, stage, by="dana", reason="looks odd")


def test_a_pin_counts_without_any_configuration(desk: Desk) -> None:
    """An operator's word holds for the next start, in runs that were told nothing of stages."""
    refund = desk.refund()
    with desk.guard.run("w", run_id="r"):
        assert refund("T-1") == "done T-1 75"
        pin(desk, "draft")
        with pytest.raises(ActionDrafted):
            refund("T-2")
        desk.guard.unpin("refund", by="dana", reason="all is well")
        assert refund("T-3") == "done T-3 75"


@pytest.mark.parametrize("pinned", STAGES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_pin_raises_nothing(desk: Desk, pinned: str, stage: str) -> None:
    """A pin lowers what a run may do, and never raises it."""
    pin(desk, pinned)
    said = desk.call(desk.refund(), "T-1", stage=stage)
    kinds = {
        "draft": ActionDrafted,
        "propose": ActionDrafted,
        "approve": ApprovalRequired,
        "auto": str,
    }
    assert isinstance(said, kinds[lowest(pinned, stage)])


def test_a_pin_is_of_one_tenant(desk: Desk) -> None:
    """What one tenant's operators pin is nothing to the others."""
    desk.guard.pin("refund", "draft", by="dana", reason="theirs", tenant="globex")
    assert desk.call(desk.refund(), "T-1") == "done T-1 75"


def test_a_pin_replaces_what_was_earned(desk: Desk) -> None:
    """A pin stands over the earned stage; without it that counts again."""
    desk.configure("{default: approve, promote: {after: 100, confidence: 0.9}}")
    pin(desk, "auto")
    assert desk.call(desk.refund(), "T-1") == "done T-1 75"
    desk.guard.unpin("refund", by="dana", reason="enough")
    assert isinstance(desk.call(desk.refund(), "T-2"), ApprovalRequired)


def test_what_people_do_stands_in_the_run_operations(desk: Desk) -> None:
    """Pins and incidents are events with their reason, in one record a tenant, whose chain is whole."""
    pin(desk, "propose")
    desk.guard.incident(tool="refund", by="erin", reason="paid twice")
    assert desk.changes("operations") == [
        {"tool": "refund", "from": None, "to": "propose", "why": "pinned", "by": "dana", "passed": 0,
         "failed": 0, "content": desk.changes("operations")[0]["content"]},
        {"tool": "refund", "from": "auto", "to": "approve", "why": "an incident", "by": "erin",
         "passed": 0, "failed": 0, "content": desk.changes("operations")[1]["content"]},
    ]  # fmt: skip
    events = desk.guard.runs.events("operations")
    assert [e.content for e in events if e.kind == "autonomy.changed"] == [
        {"reason": "looks odd"},
        {"reason": "paid twice"},
    ]
    run = desk.guard.runs.show("operations")
    assert (run.tenant, run.workflow, run.status) == ("acme", "operations", "succeeded")
    assert desk.guard.runs.verify("operations") is None


def test_an_incident_takes_a_tool_one_stage_down(desk: Desk) -> None:
    """Each incident is one stage, as far as the floor of the configuration."""
    desk.configure("{default: auto, demote: {to: propose}}")
    found = [desk.guard.incident(tool="refund", by="dana", reason="so").stage for _ in range(3)]
    assert found == ["approve", "propose", "propose"]
    assert isinstance(desk.call(desk.refund(), "T-1"), ActionDrafted)


def test_standings_tell_who_and_why(desk: Desk) -> None:
    """What is known of a tool is listed, with the person and the reason of the last change."""
    pin(desk, "approve")
    [standing] = desk.guard.standings()
    assert (standing.tool, standing.stage, standing.pinned) == ("refund", None, "approve")
    assert (standing.changed_by, standing.reason) == ("dana", "looks odd")


@pytest.mark.parametrize(
    ("by", "reason"), [("", "x"), ("dana", " "), ("agent:support", "x"), ("AGENT:support", "x")]
)
def test_a_pin_needs_a_person_and_a_reason(desk: Desk, by: str, reason: str) -> None:
    """Nobody moves a tool without saying who and why."""
    why = r"name the tool, the person \(no agent is one\) and why"
    with pytest.raises(ConfigurationError, match=why):
        desk.guard.pin("refund", "draft", by=by, reason=reason)
    with pytest.raises(ConfigurationError, match=why):
        desk.guard.unpin("refund", by=by, reason=reason)
    with pytest.raises(ConfigurationError, match=why):
        desk.guard.incident(tool="refund", by=by, reason=reason)
    assert desk.guard.standings() == []


# Earned stages.


@pytest.mark.parametrize(
    ("passed", "count", "bound"),
    [
        (0, 0, "0.000000"),
        (0, 1, "0.000000"),
        (1, 1, "0.206549"),  # n / (n + z²), for all that passed
        (5, 5, "0.565518"),
        (9, 9, "0.700855"),
        (9, 10, "0.595850"),
        (0, 10, "0.000000"),
        (20, 20, "0.838875"),
        (34, 34, "0.898485"),
        (35, 35, "0.901099"),
        (95, 100, "0.888250"),
        (50, 100, "0.403832"),
    ],
)
def test_the_bound_is_wilsons(passed: int, count: int, bound: str) -> None:
    """The lower bound at 95 % is that of Wilson's score interval, to the last digit shown."""
    assert f"{lower_bound(passed, count):.6f}" == bound


def test_the_bound_is_exact_at_the_edge() -> None:
    """A confidence that the outcomes reach exactly is reached, and one a digit above is not."""
    bound = lower_bound(20, 20)
    assert Promotion(20, bound).is_earned(20, 0)
    assert not Promotion(20, Decimal(f"{bound}1")).is_earned(20, 0)


PROMOTING = "{default: approve, promote: {after: 3, confidence: 0.4}, demote: {to: propose}}"


def done(desk: Desk, tool: Tool, ticket: str, run: str = "r") -> Any:
    """Make a call, with the yes of a person where that is needed, and return its end."""
    said = desk.call(tool, ticket, run=run)
    if isinstance(said, ActionDrafted):
        desk.approve(said.approval)
        return desk.execute(said.approval, tool)
    if isinstance(said, ApprovalRequired):
        desk.approve(said.approval)
        return desk.call(tool, ticket, run=run)
    return said


def test_a_tool_moves_up_after_verified_outcomes(desk: Desk) -> None:
    """After as many confirmed outcomes as were asked for, the next call asks nobody."""
    desk.configure(PROMOTING)
    refund = desk.verified()
    for number in range(3):
        assert isinstance(desk.call(refund, f"T-{number}"), ApprovalRequired)
        assert done(desk, refund, f"T-{number}") == f"done T-{number} 75"
    assert desk.call(refund, "T-3") == "done T-3 75"
    assert desk.changes("r") == [
        {"tool": "refund", "from": "approve", "to": "auto", "why": "verified outcomes",
         "by": "system:record", "passed": 3, "failed": 0}
    ]  # fmt: skip


def test_a_change_is_told_with_the_outcome_that_caused_it(desk: Desk) -> None:
    """The event of a change stands at the step of the last outcome, in the run that had it."""
    desk.configure(PROMOTING)
    refund = desk.verified()
    for number in range(3):
        done(desk, refund, f"T-{number}", run=f"r-{number}")
    assert [len(desk.changes(f"r-{number}")) for number in range(3)] == [0, 0, 1]
    event = desk.guard.runs.events("r-2")[-2]
    assert (event.kind, event.step) == ("autonomy.changed", 1)


def test_few_outcomes_are_not_enough_to_be_sure(desk: Desk) -> None:
    """Many enough but not sure enough: the bound decides, not the share."""
    desk.configure("{default: approve, promote: {after: 3, confidence: 0.9}}")
    for number in range(5):
        done(desk, desk.verified(), f"T-{number}")
    assert isinstance(desk.call(desk.verified(), "T-9"), ApprovalRequired)
    [standing] = desk.guard.standings()
    assert (standing.passed, standing.failed) == (5, 0)
    assert f"{standing.sure:.4f}" == "0.5655"


def test_a_tool_climbs_one_stage_at_a_time(desk: Desk) -> None:
    """From draft to auto there are three changes, and each counts its outcomes anew."""
    desk.configure("{default: draft, promote: {after: 2, confidence: 0.3}}")
    refund = desk.verified()
    for number in range(6):
        assert done(desk, refund, f"T-{number}") == f"done T-{number} 75"
    moved = [(change["from"], change["to"], change["passed"]) for change in desk.changes("r")]
    assert moved == [("draft", "propose", 2), ("propose", "approve", 2), ("approve", "auto", 2)]


def test_a_tool_climbs_no_higher_than_it_may(desk: Desk) -> None:
    """`promote.to` is the top, and a class or a run that says less caps what was earned."""
    desk.configure("{default: propose, promote: {after: 1, confidence: 0.1, to: approve}}")
    for number in range(3):
        done(desk, desk.verified(), f"T-{number}")
    assert [standing.stage for standing in desk.guard.standings()] == ["approve"]
    assert isinstance(desk.call(desk.verified(), "T-8", stage="draft"), ActionDrafted)


def test_a_failed_verdict_takes_a_tool_down_at_once(desk: Desk) -> None:
    """The next start after an outcome that was not confirmed sees the lower stage."""
    desk.configure("{default: auto, demote: {to: approve}}")
    refund = desk.verified()
    assert desk.call(refund, "T-1", run="a") == "done T-1 75"
    desk.verdict = False
    assert isinstance(desk.call(refund, "T-2", run="b"), VerificationFailed)
    assert isinstance(desk.call(refund, "T-3", run="c"), ApprovalRequired)
    [change] = desk.changes("b")
    assert (change["from"], change["to"], change["why"]) == ("auto", "approve", "a failed verdict")


def test_a_demotion_holds_in_other_processes(desk: Desk) -> None:
    """Stages are the store's: a worker with a guard of its own sees what another one's outcome did."""
    desk.configure("{default: auto, demote: {to: draft}}")
    other = desk.open("{default: auto, demote: {to: draft}}")
    refund = desk.verified()
    with other.run("w", run_id="open"):
        assert refund("T-1") == "done T-1 75"
        desk.verdict = False
        desk.call(refund, "T-2", run="b")
        with pytest.raises(ApprovalRequired):
            refund("T-3")
    other.close()


def test_a_demoted_tool_earns_its_stage_anew(desk: Desk) -> None:
    """Down one stage, its outcomes before that count for nothing."""
    desk.configure(PROMOTING)
    refund = desk.verified()
    for number in range(3):
        done(desk, refund, f"T-{number}")
    desk.verdict = False
    desk.call(refund, "bad", run="b")
    desk.verdict = True
    for number in range(3):
        assert isinstance(desk.call(refund, f"U-{number}", run="c"), ApprovalRequired)
        done(desk, refund, f"U-{number}", run="c")
    assert desk.call(refund, "V-1", run="c") == "done V-1 75"


def test_at_the_floor_failures_count_against_a_promotion(desk: Desk) -> None:
    """A tool that cannot fall any lower is not promoted by counting only what went well."""
    desk.configure(
        "{default: approve, promote: {after: 3, confidence: 0.4}, demote: {to: approve}}"
    )
    refund = desk.verified()
    desk.verdict = False
    done(desk, refund, "bad", run="b")
    desk.verdict = True
    for number in range(3):
        done(desk, refund, f"T-{number}")
    [standing] = desk.guard.standings()
    assert (standing.stage, standing.passed, standing.failed) == (None, 3, 1)


def test_a_verifier_that_did_not_answer_counts_for_nothing(desk: Desk) -> None:
    """An outage of a verifier is neither an outcome of the tool nor a reason to take it down."""
    desk.configure("{default: auto, promote: {after: 2, confidence: 0.1}, demote: {to: draft}}")
    desk.verdict = Verdict(passed=False, unavailable=True)
    desk.call(desk.verified(), "T-1")
    assert desk.guard.standings() == []


@pytest.mark.parametrize("yaml", ["auto", "approve", "{default: approve}"])
def test_nothing_is_counted_where_nothing_can_move(desk: Desk, yaml: str) -> None:
    """Without `promote` or `demote` there are no counts."""
    desk.configure(yaml)
    done(desk, desk.verified(), "T-1")
    assert desk.guard.standings() == []


def test_a_tool_without_verifiers_earns_nothing(desk: Desk) -> None:
    """An outcome that nobody has confirmed is not counted."""
    desk.configure("{default: approve, promote: {after: 1, confidence: 0.1}}")
    for number in range(3):
        done(desk, desk.refund(), f"T-{number}")
    assert desk.guard.standings() == []


def test_outcomes_of_executed_drafts_are_counted(desk: Desk) -> None:
    """What people execute tells as much of a tool as what the agent does."""
    desk.configure("{default: draft, promote: {after: 2, confidence: 0.3, to: propose}}")
    for number in range(2):
        done(desk, desk.verified(), f"T-{number}")
    assert [standing.stage for standing in desk.guard.standings()] == ["propose"]


def test_many_outcomes_at_once_are_all_counted(busy: Desk) -> None:
    """Outcomes that are settled at the same moment are one each: none is lost and none counts twice."""
    busy.configure("{default: auto, promote: {after: 1000, confidence: 0.9}, demote: {to: draft}}")
    refund = busy.verified()

    def work(number: int) -> list[Any]:
        return [busy.call(refund, f"T-{number}-{n}", run=f"r-{number}") for n in range(10)]

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(work, range(8)))
    assert all(isinstance(end, str) for found in ends for end in found)
    assert [(s.passed, s.failed) for s in busy.guard.standings()] == [(80, 0)]


def test_a_promotion_at_concurrency_happens_once(busy: Desk) -> None:
    """Among many workers one outcome is the one that promotes."""
    busy.configure("{default: approve, promote: {after: 20, confidence: 0.5}}")
    refund, numbers = busy.verified(), range(40)
    for number in numbers:
        busy.approve(busy.call(refund, f"T-{number}", run=f"r-{number}").approval)
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda n: busy.call(refund, f"T-{n}", run=f"r-{n}"), numbers))
    assert [end for end in ends if not isinstance(end, str)] == []
    changes = [change for number in numbers for change in busy.changes(f"r-{number}")]
    assert [(c["from"], c["to"], c["passed"]) for c in changes] == [("approve", "auto", 20)]


def test_no_start_passes_a_pin(busy: Desk) -> None:
    """Once an operator's pin is committed, no start of the tool is committed after it."""
    refund = busy.refund()

    def work(number: int) -> None:
        own = busy.open()
        for n in range(10_000):
            try:
                with own.run("w", run_id=f"r-{number}-{n}"):
                    refund(f"T-{number}-{n}")
            except ActionDrafted:
                break
        own.close()

    with ThreadPoolExecutor(5) as pool:
        working = [pool.submit(work, number) for number in range(4)]
        while not busy.world.effects:
            pass
        pin(busy, "draft")
        pinned = busy.guard.store.clock.now()
        [done.result() for done in working]
    runs = [run for run in busy.guard.runs.list(limit=50_000) if run.id != "operations"]
    events = [event for run in runs for event in busy.guard.runs.events(run.id)]
    started = [event.at for event in events if event.kind == "step.started"]
    starts = [int(at.timestamp() * 1_000_000) for at in started]
    assert starts
    assert max(starts) <= pinned


def test_a_draft_on_any_store_is_executed_once(busy: Desk) -> None:
    """Several people at once, each with a guard of their own: one effect, one result for all."""
    refund = busy.refund()
    draft = busy.draft(refund, "T-1")
    busy.approve(draft)

    def press(number: int) -> Any:
        own = busy.open()
        try:
            return own.approvals.execute(draft.id, by=f"person-{number}", tools=[refund])
        finally:
            own.close()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(press, range(4))) == {"done T-1 75"}
    assert busy.world.effects == ["T-1 75"]


def test_no_start_passes_a_demotion(busy: Desk) -> None:
    """Among many workers, nothing that was allowed starts after the commit that took the tool down."""
    busy.configure("{default: auto, demote: {to: approve}}")
    bad = iter([False])

    def refund(ticket: str) -> str:
        return busy.world.happen(ticket)

    tool: Any = verified_by(lambda a, _r: next(bad, True) if a["ticket"] == "T-4-5" else True)(
        idempotent(key="refund:{ticket}")(tool_contract(effect="write")(refund))
    )

    def work(number: int) -> None:
        for n in range(20):
            busy.call(tool, f"T-{number}-{n}", run=f"r-{number}-{n}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    runs = busy.guard.runs.list(limit=1000)
    events = [event for run in runs for event in busy.guard.runs.events(run.id)]
    [change] = [event for event in events if event.kind == "autonomy.changed"]
    assert (change.data["from"], change.data["to"]) == ("auto", "approve")
    starts = [event.at for event in events if event.kind == "step.started"]
    assert 0 < len(starts) < 160
    [later] = [e.at for e in events if e.kind == "run.finished" and e.run_id == change.run_id]
    assert max(starts) <= later  # that run's next transaction: by then the change was committed


# The shell.


def shell(desk: Desk, *words: str) -> tuple[int, str, str]:
    """Run the command and return its exit code, what it printed, and what it said."""
    import subprocess
    import sys

    line = [sys.executable, "-m", "agentguard", "--store", f"sqlite:///{desk.path}", *words]
    found = subprocess.run(
        line, check=False, capture_output=True, text=True, cwd=desk.path.parent, timeout=60
    )
    return found.returncode, found.stdout, found.stderr


TOOLS = """
from pathlib import Path
from agentguard import idempotent, tool_contract

@tool_contract(
    effect="write",
    evidence=lambda arguments: {"paid": "no"},
    preview=lambda arguments, before: {"paid": "yes"},
)
@idempotent(key="pay:{ticket}")
def pay(ticket: str) -> str:
    with Path("paid.txt").open("a") as file:
        file.write(ticket)
    return f"paid {ticket}"
"""


@pytest.fixture(name="module")
def module_with_a_tool(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module in the shell's folder, imported here, too; its file takes the time of the real world."""
    import importlib
    import sys

    folder = desk.path.parent
    (folder / "paying.py").write_text(TOOLS)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("paying", None)
    desk.guard.close()
    desk.guard = Guard(f"sqlite:///{desk.path}")
    yield importlib.import_module("paying")
    sys.modules.pop("paying", None)


def test_a_proposal_in_the_shell(desk: Desk, module: Any) -> None:
    """`approvals show` shows evidence and difference, and what to type to execute it once approved."""
    proposal = desk.draft(module.pay, "T-1", stage="propose")
    code, text, _ = shell(desk, "approvals", "show", proposal.id)
    assert code == 0
    assert 'now           {"paid": "no"}' in text
    assert '  paid        "no" -> "yes"' in text
    assert "to execute" not in text
    _, _, said = shell(desk, "approvals", "approve", proposal.id, "--by", "dana")
    assert f"agentguard approvals execute {proposal.id} --by YOU --tools MODULE runs pay" in said
    assert "to execute" in shell(desk, "approvals", "show", proposal.id)[1]


def test_execute_in_the_shell(desk: Desk, module: Any) -> None:
    """`approvals execute` runs the draft once, prints its result, and refuses what nobody approved."""
    draft = desk.draft(module.pay, "T-1")
    words = ("approvals", "execute", draft.id, "--by", "dana", "--tools", "paying")
    code, _, said = shell(desk, *words)
    assert (code, "is pending, so it cannot be executed" in said) == (3, True)
    desk.approve(draft)
    code, text, said = shell(desk, *words)
    assert (code, text.split()) == (0, ["result", '"paid', 'T-1"'])
    assert f"pay was executed: run r, step {draft.step}" in said
    found = json.loads(shell(desk, *words[:-1], "paying:pay", "-o", "json")[1])
    assert (found["state"], found["result"]) == ("succeeded", "paid T-1")
    assert (desk.path.parent / "paid.txt").read_text() == "T-1"


def test_execute_needs_the_configuration_of_the_run(desk: Desk, module: Any) -> None:
    """A draft was approved under a policy: without its file the shell refuses, with it, it runs."""
    file = desk.path.parent / "agent_run.yaml"
    file.write_text("agent_run:\n  autonomy: draft\n")
    desk.guard.close()
    desk.guard = Guard.from_config(file, store=f"sqlite:///{desk.path}")
    draft = desk.draft(module.pay, "T-1", stage="auto")
    desk.approve(draft)
    words = ("approvals", "execute", draft.id, "--by", "dana", "--tools", "paying")
    assert "is not what would run now" in shell(desk, *words)[2]
    assert shell(desk, *words, "--config", str(file))[0] == 0


def test_stages_in_the_shell(desk: Desk, module: Any) -> None:
    """`autonomy pin`, `list`, `incident` and `unpin` say what they did; the next call obeys."""
    assert "nothing is known" in shell(desk, "autonomy", "list")[2]
    who = ("--by", "dana", "--reason", "looks odd")
    assert "pay is pinned at draft" in shell(desk, "autonomy", "pin", "pay", "draft", *who)[2]
    assert isinstance(desk.call(module.pay, "T-1"), ActionDrafted)
    assert "it is pinned at draft" in shell(desk, "autonomy", "incident", "pay", *who)[2]
    [found] = json.loads(shell(desk, "autonomy", "list", "-o", "json")[1])
    assert (found["tool"], found["stage"], found["pinned"]) == ("pay", "approve", "draft")
    assert "it has earned approve" in shell(desk, "autonomy", "unpin", "pay", *who)[2]
    assert isinstance(desk.call(module.pay, "T-2"), ApprovalRequired)
    text = shell(desk, "runs", "show", "operations")[1]
    assert "autonomy  pay: auto -> approve, an incident by dana: looks odd" in text


def test_a_run_with_a_draft_in_the_shell(desk: Desk, module: Any) -> None:
    """`runs show` says what was drafted, and where to look; the run is not waiting."""
    draft = desk.draft(module.pay, "T-1")
    text = shell(desk, "runs", "show", "r")[1]
    assert "succeeded" in text
    assert "drafted" in text
    assert f"step 1: agentguard approvals show {draft.id[:12]}" in text
    assert "written down for a person" in shell(desk, "runs", "show", "r", "--step", "1")[1]


def test_policy_check_tells_the_stages(desk: Desk) -> None:
    """`policy check` says in one line what the file says of stages."""
    file = desk.path.parent / "agent_run.yaml"
    stages = "{default: approve, tools: {pay: draft}, classes: {read: auto}"
    file.write_text(
        f"agent_run:\n  autonomy: {stages}, promote: {{after: 20, confidence: 0.9}}}}\n"
    )
    text = shell(desk, "policy", "check", str(file))[1]
    said = "approve, pay draft, every read auto, up to auto after 20 outcomes, 0.9 sure"
    assert f"autonomy          {said}" in text


def test_a_pin_in_the_shell_needs_a_reason(desk: Desk) -> None:
    """Without --reason nothing is changed."""
    assert shell(desk, "autonomy", "pin", "pay", "draft", "--by", "dana")[0] == 2
    assert desk.guard.standings() == []
