"""Undoing: what an undo is given, when it starts, what both rows say then, and what is refused."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentguard import (
    ApprovalRequired,
    ConfigurationError,
    DecisionRefused,
    EffectInDoubt,
    Guard,
    Happened,
    NoEffect,
    RunHalted,
    Unknown,
    VerificationFailed,
    compensated_by,
    current_run,
    falls_back_to,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from agentguard.errors import EffectUndone, FellBack
from agentguard.hosting import Host
from agentguard.rollback import Rollback
from tests.support import World

BY: dict[str, Any] = {"by": "dana", "reason": "the wrong customer"}


class Shop:
    """A world with a tool that pays and can take that back.

    Attributes:
        says: what the verifier answers.
    """

    def __init__(self, world: World, **options: Any) -> None:
        self.world, self.says = world, True
        self.undo: Callable[..., Any] = lambda _result, ticket: self.world.happen(f"undo {ticket}")
        self.tool = self.make(**options)

    def make(self, *policies: Any, **options: Any) -> Any:
        """Decorate the tool that pays."""

        def void(result: Any, ticket: str) -> Any:
            return self.undo(result, ticket)

        def pay(ticket: str, amount: Decimal = Decimal(20)) -> dict[str, Any]:
            self.world.happen(f"pay {ticket}")
            return {"id": f"re-{ticket}", "amount": amount}

        def look(_arguments: Any, _result: Any) -> bool:
            return self.says

        tool: Any = pay
        for policy in (
            tool_contract(effect="write"), idempotent(key="pay:{ticket}"), verified_by(look),
            compensated_by(void, **options), *policies,
        ):  # fmt: skip
            tool = policy(tool)
        return tool


@pytest.fixture(name="world")
def world_of_its_own(tmp_path: Path) -> World:
    """Where effects happen."""
    return World(tmp_path / "world.txt")


@pytest.fixture(name="guard")
def guard_on_a_file(tmp_path: Path) -> Iterator[Guard]:
    """A guard on an embedded store."""
    opened = Guard(f"sqlite:///{tmp_path}/agentguard.db")
    yield opened
    opened.close()


@pytest.fixture(name="shop")
def shop_in_a_world(world: World) -> Shop:
    """A tool that pays, with an undo."""
    return Shop(world)


def told(found: Rollback) -> list[tuple[str, int, str]]:
    """Shorten a report to tool, step and what became of it."""
    return [(one.tool, one.step, one.what) for one in found.effects]


def pay(guard: Guard, tool: Any, *tickets: str, run: str = "r-1") -> None:
    """Pay in one run."""
    with guard.run("refund", run_id=run):
        for ticket in tickets:
            tool(ticket)


def paid(guard: Guard) -> Any:
    """Return the only effect that is no undo."""
    (found,) = [e for e in guard.effects.list() if not e.id.startswith("comp/")]
    return found


def undone(guard: Guard) -> Any:
    """Return the only undo."""
    (found,) = [e for e in guard.effects.list() if e.id.startswith("comp/")]
    return found


# After a verifier's no.


def test_what_a_verifier_refutes_is_undone_and_the_caller_is_told_both(
    guard: Guard, shop: Shop
) -> None:
    """A refuted outcome is undone by itself, and the error says so."""
    shop.says = False
    with pytest.raises(VerificationFailed, match=r"look says no.*it was undone, by comp/ag1_"):
        pay(guard, shop.tool, "T-1")
    assert shop.world.effects == ["pay T-1", "undo T-1"]


def test_both_rows_say_that_it_was_undone(guard: Guard, shop: Shop) -> None:
    """The effect stays succeeded, is marked as undone, and names what undid it."""
    shop.says = False
    with pytest.raises(VerificationFailed):
        pay(guard, shop.tool, "T-1")
    effect, undo = paid(guard), undone(guard)
    assert (effect.state, effect.result_state, effect.undo) == ("succeeded", "undone", undo.id)
    assert (undo.id, undo.tool, undo.state) == (f"comp/{effect.id}", "pay.undo", "succeeded")


def test_the_record_of_the_effect_tells_of_its_undo(guard: Guard, shop: Shop) -> None:
    """An event names the effect, the undo and the outcome, and the chain is whole."""
    shop.says = False
    with pytest.raises(VerificationFailed):
        pay(guard, shop.tool, "T-1")
    (event,) = [e for e in guard.runs.events("r-1") if e.kind == "compensated"]
    effect = paid(guard)
    assert dict(event.data) == {
        "key": effect.id, "tool": "pay", "undo": f"comp/{effect.id}", "outcome": "undone",
    }  # fmt: skip
    assert event.step == effect.step
    assert guard.runs.verify("r-1") is None


def test_an_undone_effect_is_never_replayed_as_done(guard: Guard, shop: Shop) -> None:
    """The key of an undone effect starts nothing and gives back no result, in any run."""
    shop.says = False
    with pytest.raises(VerificationFailed):
        pay(guard, shop.tool, "T-1")
    with pytest.raises(EffectUndone, match="undone since") as caught:
        pay(guard, shop.tool, "T-1", run="r-2")
    assert caught.value.effect_id == paid(guard).id
    assert shop.world.effects == ["pay T-1", "undo T-1"]


def test_an_undo_that_did_nothing_is_told_and_can_be_tried_again(guard: Guard, shop: Shop) -> None:
    """A failed undo leaves the effect refuted; the next delivery tries once more."""
    shop.says = False
    good, shop.undo = shop.undo, _busy
    with pytest.raises(VerificationFailed, match=r"it was not undone: NoEffect: busy"):
        pay(guard, shop.tool, "T-1")
    assert (paid(guard).result_state, undone(guard).state) == ("refuted", "failed_retryable")
    shop.undo = good
    with pytest.raises(VerificationFailed, match="it was undone"):
        pay(guard, shop.tool, "T-1", run="r-2")
    assert shop.world.effects == ["pay T-1", "undo T-1"]
    assert paid(guard).result_state == "undone"


def _busy(_result: Any, _ticket: str) -> None:
    raise NoEffect("busy")


def test_a_final_failure_of_an_undo_is_not_its_last(guard: Guard, shop: Shop) -> None:
    """An undo may be tried again whatever it said, since the effect still stands."""
    shop.says = False

    def never(_result: Any, _ticket: str) -> None:
        raise NoEffect("closed for today", retryable=False)

    good, shop.undo = shop.undo, never
    with pytest.raises(VerificationFailed, match="not undone"):
        pay(guard, shop.tool, "T-1")
    shop.undo = good
    assert guard.rollback("r-1", tools=[shop.tool], **BY).done
    assert shop.world.effects == ["pay T-1", "undo T-1"]


def test_a_doubt_of_an_undo_is_a_doubt_like_any_other(guard: Guard, shop: Shop) -> None:
    """An undo of which nobody knows whether it happened is listed, and never repeated by itself."""
    shop.says = False

    def lost(_result: Any, ticket: str) -> None:
        shop.world.happen(f"undo {ticket}")
        raise RuntimeError("connection reset")

    shop.undo = lost
    with pytest.raises(VerificationFailed, match=r"not undone: .*does not tell whether"):
        pay(guard, shop.tool, "T-1")
    (doubt,) = guard.effects.list("in_doubt")
    assert doubt.tool == "pay.undo"
    with pytest.raises(VerificationFailed, match="not undone"):
        pay(guard, shop.tool, "T-1", run="r-2")
    assert shop.world.effects == ["pay T-1", "undo T-1"]


@pytest.mark.parametrize(("ruling", "state", "lines"), [
    ("happened", "undone", ["pay T-1", "undo T-1"]),
    ("not_happened", "refuted", ["pay T-1", "undo T-1"]),
])  # fmt: skip
def test_a_ruling_on_an_undo_is_a_ruling_on_both_rows(
    guard: Guard, shop: Shop, ruling: str, state: str, lines: list[str]
) -> None:
    """Whoever rules that an undo happened has ruled that the effect is undone."""
    test_a_doubt_of_an_undo_is_a_doubt_like_any_other(guard, shop)
    guard.effects.resolve(undone(guard).id, ruling, by="dana", reason="looked")
    assert paid(guard).result_state == state
    assert shop.world.effects == lines


def test_with_rollback_only_a_no_leaves_a_doubt(guard: Guard, world: World) -> None:
    """Where only people undo, an outcome that is not confirmed waits for them."""
    shop = Shop(world, when="rollback_only")
    shop.says = False
    with pytest.raises(VerificationFailed):
        pay(guard, shop.tool, "T-1")
    assert paid(guard).state == "in_doubt"
    assert world.effects == ["pay T-1"]


def test_a_verifier_of_the_undo_is_asked(guard: Guard, world: World) -> None:
    """An undo that its own verifier does not confirm is in doubt."""
    shop = Shop(world, verified_by=lambda arguments, _result: arguments["ticket"] == "T-2")
    shop.says = False
    with pytest.raises(VerificationFailed, match="it was not undone"):
        pay(guard, shop.tool, "T-1")
    assert (undone(guard).state, undone(guard).doubt_reason) == ("in_doubt", "verifier_failed")


async def test_an_async_tool_is_undone_on_its_event_loop(guard: Guard, world: World) -> None:
    """An async undo is awaited, and a sync one of an async tool is called."""

    async def void(_result: Any, ticket: str) -> None:
        await asyncio.sleep(0)
        world.happen(f"undo {ticket}")

    for number, undo in enumerate((void, lambda _result, ticket: world.happen(f"undo {ticket}"))):

        @tool_contract(effect="write", name=f"pay_{number}")
        @idempotent(key="pay:{ticket}")
        @verified_by(lambda _arguments, _result: False)
        @compensated_by(undo)
        async def pay_later(ticket: str) -> None:
            world.happen(f"pay {ticket}")

        async with guard.run("refund"):
            with pytest.raises(VerificationFailed, match="it was undone"):
                await pay_later(f"T-{number}")
    assert world.effects == ["pay T-0", "undo T-0", "pay T-1", "undo T-1"]


# Approval.


def test_an_undo_waits_for_people_and_goes_on_when_its_call_comes_again(
    guard: Guard, world: World
) -> None:
    """A pending approval is raised; once given, the next delivery undoes."""
    shop = Shop(world, approval={"roles": ["finance"]})
    shop.says = False
    with pytest.raises(ApprovalRequired, match=r"pay\.undo waits for a person") as caught:
        pay(guard, shop.tool, "T-1")
    assert guard.runs.show("r-1").status == "waiting"
    approval = guard.approvals.show(caught.value.approval.id)
    assert approval.arguments["ticket"] == "T-1"
    assert approval.roles == ("finance",)
    guard.approvals.decide(approval.id, "approve", by="fred", roles=["finance"])
    with pytest.raises(VerificationFailed, match="it was undone"):
        pay(guard, shop.tool, "T-1")
    assert world.effects == ["pay T-1", "undo T-1"]


def test_a_rejected_undo_is_told_and_undoes_nothing(guard: Guard, world: World) -> None:
    """A no stands: the effect stays refuted, callers are told who said so, a rollback stops there."""
    shop = Shop(world, approval=True)
    shop.says = False
    with pytest.raises(ApprovalRequired) as caught:
        pay(guard, shop.tool, "T-1")
    guard.approvals.decide(caught.value.approval.id, "reject", by="fred", reason="keep it")
    for _ in range(2):
        with pytest.raises(VerificationFailed, match=r"not undone: .*rejected by fred: keep it"):
            pay(guard, shop.tool, "T-1")
    found = guard.rollback("r-1", tools=[shop.tool], **BY)
    assert found.stopped is not None
    assert (found.stopped.what, found.stopped.because) == ("failed", "approval_rejected")
    assert (world.effects, paid(guard).result_state) == (["pay T-1"], "refuted")


def test_an_approval_on_the_undo_itself_may_depend_on_the_arguments(
    guard: Guard, world: World
) -> None:
    """`requires_approval` on the undo asks by its own rule."""

    @requires_approval(when="amount > 50")
    def void(_result: Any, ticket: str, amount: Decimal) -> None:
        world.happen(f"undo {ticket} {amount}")

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    @compensated_by(void)
    def pay_out(ticket: str, amount: Decimal) -> None:
        world.happen(f"pay {ticket} {amount}")

    with guard.run("refund", run_id="r-1"):
        pay_out("T-1", Decimal(60))
        pay_out("T-2", Decimal(40))
    found = guard.rollback("r-1", tools=[pay_out], **BY)
    assert told(found) == [("pay_out", 2, "undone"), ("pay_out", 1, "waits for approval")]
    assert found.stopped is not None
    assert "agentguard approvals show ap_" in found.stopped.detail


def test_who_asks_for_a_rollback_does_not_approve_its_undos(guard: Guard, world: World) -> None:
    """The person who wants it undone is the requester, so somebody else has to say yes."""
    shop = Shop(world, approval=True)
    pay(guard, shop.tool, "T-1")
    assert guard.rollback("r-1", tools=[shop.tool], **BY).effects[0].what == "waits for approval"
    (approval,) = guard.approvals.list("pending")
    with pytest.raises(Exception, match="dana asked for this call"):
        guard.approvals.decide(approval.id, "approve", by="dana")
    guard.approvals.decide(approval.id, "approve", by="fred")
    assert guard.rollback("r-1", tools=[shop.tool], **BY).done
    assert world.effects == ["pay T-1", "undo T-1"]


# What an undo is given.


class Refund(BaseModel):
    """A result with types."""

    id: str
    amount: Decimal


def test_an_argument_that_its_record_cannot_tell_is_not_guessed(guard: Guard, world: World) -> None:
    """Bytes are shown as base64, which does not come back as what they were: that is told."""
    seen: list[Any] = []

    def void(_result: Any, tag: bytes) -> None:
        seen.append(tag)

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    @compensated_by(void)
    def pay_out(ticket: str, tag: bytes = b"x") -> None:
        world.happen(ticket)

    pay(guard, pay_out, "T-1")
    found = guard.rollback("r-1", tools=[pay_out], **BY)
    assert [(one.what, one.because) for one in found.effects] == [
        ("irreversible", "result_unavailable")
    ]
    assert "tag" in found.effects[0].detail
    assert seen == []


def test_an_undo_gets_result_and_arguments_back_with_their_types(
    guard: Guard, world: World
) -> None:
    """Models, dates and amounts come back from the record equal to what they were."""
    seen: list[Any] = []

    def void(result: Refund, *, day: dt.date, amounts: list[Decimal]) -> None:
        seen.append((result, day, amounts, current_run().call.idempotency_key))

    @tool_contract(effect="write", strict=True)
    @idempotent(key="pay:{ticket}")
    @compensated_by(void)
    def pay_out(ticket: str, day: dt.date, amounts: list[Decimal]) -> Refund:
        world.happen(ticket)
        return Refund(id="re-1", amount=sum(amounts, Decimal(0)))

    day, amounts = dt.date(2026, 11, 27), [Decimal("0.1"), Decimal("0.2")]
    with guard.run("refund", run_id="r-1"):
        pay_out("T-1", day, amounts)
    assert guard.rollback("r-1", tools=[pay_out], **BY).done
    (given,) = seen
    assert given[:3] == (Refund(id="re-1", amount=Decimal("0.3")), day, amounts)
    assert given[3] == undone(guard).id


def test_an_undo_is_given_what_an_approver_changed(guard: Guard, world: World) -> None:
    """The arguments that ran are undone, not those that were asked for."""
    seen: list[Decimal] = []

    def void(_result: Any, amount: Decimal) -> None:
        seen.append(amount)

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    @requires_approval(allow_edit=True)
    @compensated_by(void)
    def pay_out(ticket: str, amount: Decimal) -> None:
        world.happen(f"{ticket} {amount}")

    with pytest.raises(ApprovalRequired) as caught, guard.run("refund", run_id="r-1"):
        pay_out("T-1", Decimal(90))
    approval = caught.value.approval.id
    guard.approvals.decide(approval, "edit", by="ed", edits={"amount": "9"})
    guard.approvals.decide(approval, "approve", by="fred")
    with guard.run("refund", run_id="r-1"):
        pay_out("T-1", Decimal(90))
    assert guard.rollback("r-1", tools=[pay_out], **BY).done
    assert (world.effects, seen) == (["T-1 9"], [Decimal(9)])


def test_a_result_that_was_not_kept_cannot_be_undone_and_is_listed_so(
    guard: Guard, world: World
) -> None:
    """Without its result an effect is listed as irreversible, and the rollback goes on."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    @compensated_by(lambda _result: world.happen("undo"))
    def pay_out(ticket: str) -> Any:
        world.happen(f"pay {ticket}")
        return object() if ticket == "T-2" else None

    pay(guard, pay_out, "T-1", "T-2")
    for dry in (True, False):
        found = guard.rollback("r-1", tools=[pay_out], dry_run=dry, **BY)
        assert found.effects[0].what == "irreversible"
        assert "its result is not kept" in found.effects[0].detail
    assert found.effects[1].what == "undone"
    assert world.effects == ["pay T-1", "pay T-2", "undo"]


# Rolling back.


def test_a_rollback_goes_from_the_last_effect_to_the_first(guard: Guard, shop: Shop) -> None:
    """Effects are undone in the reverse order of their ends."""
    pay(guard, shop.tool, "T-1", "T-2", "T-3")
    found = guard.rollback("r-1", tools=[shop.tool], **BY)
    assert told(found) == [("pay", step, "undone") for step in (3, 2, 1)]
    assert shop.world.effects[3:] == ["undo T-3", "undo T-2", "undo T-1"]
    assert found.done


def test_a_rollback_goes_back_to_a_step(guard: Guard, shop: Shop) -> None:
    """With a step only that one and what came after it is undone."""
    pay(guard, shop.tool, "T-1", "T-2", "T-3")
    found = guard.rollback("r-1", tools=[shop.tool], step=2, **BY)
    assert told(found) == [("pay", 3, "undone"), ("pay", 2, "undone")]
    assert shop.world.effects[3:] == ["undo T-3", "undo T-2"]


def test_a_dry_run_writes_nothing_anywhere(guard: Guard, shop: Shop) -> None:
    """It says what would be undone and leaves world and record as they were."""
    pay(guard, shop.tool, "T-1", "T-2")
    before = guard.runs.events("r-1")
    found = guard.rollback("r-1", tools=[shop.tool], dry_run=True, **BY)
    assert told(found) == [("pay", 2, "would be undone"), ("pay", 1, "would be undone")]
    assert (found.dry_run, found.done) == (True, False)
    assert guard.runs.events("r-1") == before
    assert shop.world.effects == ["pay T-1", "pay T-2"]


def test_a_second_rollback_repeats_nothing(guard: Guard, shop: Shop) -> None:
    """What is undone is listed so and not touched."""
    pay(guard, shop.tool, "T-1", "T-2")
    guard.rollback("r-1", tools=[shop.tool], step=2, **BY)
    found = guard.rollback("r-1", tools=[shop.tool], **BY)
    assert told(found) == [("pay", 2, "already undone"), ("pay", 1, "undone")]
    assert shop.world.effects[2:] == ["undo T-2", "undo T-1"]


def test_what_cannot_be_undone_is_listed_not_hidden(guard: Guard, shop: Shop) -> None:
    """Irreversible effects and those without an undo stand in the report; the others are undone."""

    @tool_contract(effect="write", irreversible=True)
    @idempotent(key="mail:{to}")
    def mail(to: str) -> None:
        shop.world.happen(f"mail {to}")

    @tool_contract(effect="write")
    @idempotent(key="note:{text}")
    def note(text: str) -> None:
        shop.world.happen(f"note {text}")

    with guard.run("refund", run_id="r-1"):
        shop.tool("T-1")
        mail("dana")
        note("x")
    found = guard.rollback("r-1", tools=[shop.tool, note], **BY)
    assert told(found) == [
        ("note", 3, "no undo declared"), ("mail", 2, "irreversible"), ("pay", 1, "undone"),
    ]  # fmt: skip
    assert found.done


def test_a_rollback_stops_at_a_doubt_and_names_it(guard: Guard, shop: Shop) -> None:
    """Nothing before a doubt is undone until somebody has ruled on it; then the rollback goes on."""

    @tool_contract(effect="write")
    @idempotent(key="ship:{ticket}")
    @compensated_by(lambda _result, ticket: shop.world.happen(f"unship {ticket}"))
    def ship(ticket: str) -> None:
        raise RuntimeError("connection reset")

    with guard.run("refund", run_id="r-1"):
        shop.tool("T-1")
        with pytest.raises(EffectInDoubt):
            ship("T-1")
    found = guard.rollback("r-1", tools=[shop.tool, ship], **BY)
    assert told(found) == [("ship", 2, "in doubt"), ("pay", 1, "would be undone")]
    assert found.stopped is not None
    assert f"agentguard effects resolve {found.stopped.key}" in found.stopped.detail
    assert shop.world.effects == ["pay T-1"]
    guard.effects.resolve(found.stopped.key, "happened", by="dana", reason="it is on its way")
    assert guard.rollback("r-1", tools=[shop.tool, ship], **BY).done
    assert shop.world.effects == ["pay T-1", "unship T-1", "undo T-1"]


def test_a_rollback_stops_at_a_failed_undo_and_goes_on_later(guard: Guard, shop: Shop) -> None:
    """The effects before a failed undo are not touched; once more goes on with it."""
    pay(guard, shop.tool, "T-1", "T-2")
    good, shop.undo = shop.undo, _busy
    found = guard.rollback("r-1", tools=[shop.tool], **BY)
    assert told(found) == [("pay", 2, "failed"), ("pay", 1, "would be undone")]
    assert found.stopped is not None
    assert found.stopped.detail == "NoEffect: busy"
    shop.undo = good
    assert guard.rollback("r-1", tools=[shop.tool], **BY).done
    assert shop.world.effects[2:] == ["undo T-2", "undo T-1"]


def test_an_undo_that_is_given_up_is_listed_and_passed_over(guard: Guard, shop: Shop) -> None:
    """Who rules that an undo failed for good has said that its effect stands."""
    pay(guard, shop.tool, "T-1", "T-2")

    def lost(_result: Any, _ticket: str) -> None:
        raise RuntimeError("connection reset")

    good, shop.undo = shop.undo, lost
    found = guard.rollback("r-1", tools=[shop.tool], **BY)
    assert found.effects[0].what == "in doubt"
    guard.effects.resolve(found.effects[0].undo, "failed", by="dana", reason="too late for it")
    shop.undo = good
    again = guard.rollback("r-1", tools=[shop.tool], **BY)
    assert told(again) == [("pay", 2, "irreversible"), ("pay", 1, "undone")]
    assert shop.world.effects[2:] == ["undo T-1"]


def test_the_record_names_who_rolled_back_and_why(guard: Guard, shop: Shop) -> None:
    """Begin, undos and end of a rollback are events of the run, by the person who wanted it."""
    pay(guard, shop.tool, "T-1")
    before = len(guard.runs.events("r-1"))
    guard.rollback("r-1", tools=[shop.tool], **BY)
    events = guard.runs.events("r-1")[before:]
    assert [event.kind for event in events] == [
        "rollback.started", "step.started", "step.finished", "compensated", "rollback.finished",
    ]  # fmt: skip
    assert {event.actor for event in events} == {"person:dana"}
    assert events[0].content == {"reason": "the wrong customer"}
    assert dict(events[-1].data) == {"undone": 1, "stopped": None}
    assert guard.runs.verify("r-1") is None


def test_a_run_that_was_cancelled_can_be_rolled_back(guard: Guard, shop: Shop) -> None:
    """Whoever stops a run for good may still have undone what it did."""
    pay(guard, shop.tool, "T-1")
    guard.runs.cancel("r-1", **BY)
    assert guard.rollback("r-1", tools=[shop.tool], **BY).done


def test_a_running_run_is_not_rolled_back(guard: Guard, shop: Shop) -> None:
    """What writes meanwhile would stay, so it has to be stopped before."""
    with guard.run("refund", run_id="r-1"):
        shop.tool("T-1")
        with pytest.raises(DecisionRefused, match="agentguard runs cancel r-1"):
            guard.rollback("r-1", tools=[shop.tool], **BY)


def test_a_run_that_works_again_is_not_rolled_back_further(guard: Guard, shop: Shop) -> None:
    """Each undo looks in its start transaction whether the run has been entered meanwhile."""
    pay(guard, shop.tool, "T-1", "T-2")
    good = shop.undo

    def meanwhile(result: Any, ticket: str) -> None:
        good(result, ticket)
        worker = threading.Thread(target=guard.run("refund", run_id="r-1").__enter__)
        worker.start()
        worker.join()

    shop.undo = meanwhile
    found = guard.rollback("r-1", tools=[shop.tool], **BY)
    assert told(found) == [("pay", 2, "undone"), ("pay", 1, "failed")]
    assert "is running again" in found.effects[1].detail
    assert shop.world.effects[2:] == ["undo T-2"]


def test_a_kill_switch_stops_undos_too(guard: Guard, shop: Shop) -> None:
    """No undo starts under a switch over everything; the one of its tool stops only that."""
    pay(guard, shop.tool, "T-1")
    guard.kill(all=True, by="sam", reason="incident")
    found = guard.rollback("r-1", tools=[shop.tool], **BY)
    assert found.effects[0].because == RunHalted.kind
    guard.kill(all=True, by="sam", reason="over", lift=True)
    guard.kill(tool="pay", by="sam", reason="it pays wrong amounts")
    assert guard.rollback("r-1", tools=[shop.tool], **BY).done


def test_an_undo_is_in_no_budget_of_its_run(guard: Guard, shop: Shop) -> None:
    """A run without a step left can be rolled back."""
    with guard.run("refund", run_id="r-1", max_steps=1, max_tool_calls=1, max_spend_usd="0"):
        shop.tool("T-1")
    assert guard.rollback("r-1", tools=[shop.tool], **BY).done


@pytest.mark.parametrize(
    "missing", [{"by": " "}, {"reason": ""}, {"by": "agent:support"}, {"by": " Agent:support"}]
)
def test_a_rollback_needs_a_person_and_a_reason(
    guard: Guard, shop: Shop, missing: dict[str, str]
) -> None:
    """Without them nothing is undone."""
    pay(guard, shop.tool, "T-1")
    both: dict[str, Any] = {**BY, **missing}
    with pytest.raises(DecisionRefused, match="by, reason"):
        guard.rollback("r-1", tools=[shop.tool], **both)


def test_a_rollback_without_the_tool_of_an_effect_does_not_begin(guard: Guard, shop: Shop) -> None:
    """An undo that is declared and not given is asked for, not left out."""
    pay(guard, shop.tool, "T-1")
    with pytest.raises(ConfigurationError, match=r"wrote with pay \(undone by void\)"):
        guard.rollback("r-1", tools=[], **BY)


async def test_an_async_tool_is_rolled_back_from_either_colour(guard: Guard, world: World) -> None:
    """Plain code drives an event loop of its own; code on a loop awaits `arollback`."""

    async def void(_result: Any, ticket: str) -> None:
        await asyncio.sleep(0)
        world.happen(f"undo {ticket}")

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    @compensated_by(void)
    async def pay_later(ticket: str) -> None:
        world.happen(f"pay {ticket}")

    async with guard.run("refund", run_id="r-1"):
        await pay_later("T-1")
        await pay_later("T-2")
    with pytest.raises(ConfigurationError, match=r"await guard\.arollback"):
        guard.rollback("r-1", tools=[pay_later], **BY)
    assert (await guard.arollback("r-1", tools=[pay_later], step=2, **BY)).done
    found = await asyncio.to_thread(guard.rollback, "r-1", tools=[pay_later], **BY)
    assert found.done
    assert world.effects[2:] == ["undo T-2", "undo T-1"]


def test_an_undo_of_a_tool_in_a_thread_has_the_same_deadline(guard: Guard, world: World) -> None:
    """An undo that does not answer in time is in doubt, and its late answer undoes."""
    go, at_work = threading.Event(), list[threading.Thread]()

    def void(_result: Any, ticket: str) -> None:
        at_work.append(threading.current_thread())
        go.wait(30)
        world.happen(f"undo {ticket}")

    @tool_contract(effect="write", timeout=0.5, isolation="thread")
    @idempotent(key="pay:{ticket}")
    @compensated_by(void)
    def pay_out(ticket: str) -> None:
        world.happen(f"pay {ticket}")

    pay(guard, pay_out, "T-1")
    assert guard.rollback("r-1", tools=[pay_out], **BY).effects[0].what == "in doubt"
    go.set()
    at_work[0].join(30)
    assert (paid(guard).result_state, undone(guard).state) == ("undone", "succeeded")


def test_a_tool_in_the_database_of_the_store_is_undone_in_it(tmp_path: Path) -> None:
    """The undo's statements and the record of it are one transaction."""
    guard = Guard(f"sqlite:///{tmp_path}/both.db")
    guard.store.transact(lambda tx: tx.run("CREATE TABLE ours (ticket TEXT)"))

    def void(_result: Any, ticket: str) -> None:
        connection = current_run().call.connection
        connection.execute("DELETE FROM ours WHERE ticket = ?", (ticket,))

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}", same_database=True)
    @compensated_by(void)
    def pay_out(ticket: str) -> None:
        connection = current_run().call.connection
        connection.execute("INSERT INTO ours VALUES (?)", (ticket,))

    pay(guard, pay_out, "T-1", "T-2")
    assert guard.rollback("r-1", tools=[pay_out], step=2, **BY).done
    rows = guard.store.read(lambda tx: list(tx.rows("SELECT ticket FROM ours")))
    assert [tuple(row) for row in rows] == [("T-1",)]
    guard.close()


# What is refused where it is declared or first used.


def void_it(result: Any, ticket: str) -> None:
    """An undo."""


def bound(guard: Guard, undo: Any = void_it, /, key: Any = None, **contract: Any) -> list[str]:
    """Return what is wrong with a tool that has this undo."""

    def pay_out(ticket: str, card: str = "", note: str = "") -> None:
        """Pay."""

    options: dict[str, Any] = {"effect": "write", **contract}
    keys: dict[str, Any] = key or {"key": "pay:{ticket}"}
    keyed = idempotent(**keys)
    tool: Any = tool_contract(**options)(compensated_by(undo)(keyed(pay_out)))
    return guard.check([tool])


@pytest.mark.parametrize(("undo", "contract", "says"), [
    (void_it, {"irreversible": True}, "keep irreversible=True or @compensated_by"),
    (void_it, {"effect": "read"}, "writes nothing, so there is nothing to undo"),
    (lambda: None, {}, "takes the result first"),
    (lambda ticket: None, {}, "first parameter is the result"),
    (lambda _result, amount: None, {}, "has no argument 'amount'"),
    (lambda _result, *rest: None, {}, "name the arguments"),
    (lambda _result, card: None, {"sensitive": "card"}, "'card' is a sensitive argument"),
    (lambda _result, **_all: None, {"sensitive": "card"}, "'card' is a sensitive argument"),
])  # fmt: skip
def test_an_undo_that_cannot_work_is_refused_before_any_effect(
    guard: Guard, undo: Any, contract: dict[str, Any], says: str
) -> None:
    """Each problem is one sentence that says what to change."""
    (problem,) = bound(guard, undo, **contract)
    assert says in problem


def test_an_undo_may_not_name_a_volatile_argument(guard: Guard) -> None:
    """What is no part of the payload may have been another value when the body ran."""
    key = {"key": "pay:{ticket}", "volatile": "note"}
    (problem,) = bound(guard, lambda _result, note: None, key=key)
    assert "'note' is a volatile argument" in problem


def test_an_async_undo_of_a_sync_tool_is_refused(guard: Guard) -> None:
    """Nobody could await it."""

    async def void(_result: Any) -> None:
        """An undo."""

    (problem,) = bound(guard, void)
    assert "so its undo must be sync" in problem


def test_an_undo_takes_contract_and_key_from_its_tool() -> None:
    """Decorators that would make it an effect of another kind are refused."""
    undo = tool_contract(effect="write")(idempotent(key="x:{ticket}")(void_it))
    with pytest.raises(ConfigurationError, match="leave out the contract decorator"):
        compensated_by(undo)


@pytest.mark.parametrize(("options", "says"), [
    ({"when": "always"}, "failed_verdict"),
    ({"approval": {"role": "finance"}}, "no option 'role'"),
    ({"approval": {"quorum": 0}}, "quorum"),
    ({"verified_by": 3}, "callable"),
])  # fmt: skip
def test_a_declaration_that_contradicts_itself_is_refused_where_it_stands(
    options: dict[str, Any], says: str
) -> None:
    """The sentence names the option."""
    with pytest.raises(ConfigurationError, match=says):
        compensated_by(void_it, **options)


# With other promises.


def test_what_a_hook_finds_and_a_verifier_refutes_is_undone(guard: Guard, world: World) -> None:
    """An effect in doubt that did happen, wrongly, is not left in doubt: it is undone."""
    seen: list[str] = []

    def look(_call: Any) -> Happened | Unknown:
        return Happened("paid") if seen else Unknown()

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}", reconcile=look)
    @verified_by(lambda _arguments, _result: False)
    @compensated_by(lambda result, ticket: world.happen(f"undo {ticket} {result}"))
    def pay_out(ticket: str) -> str:
        world.happen(f"pay {ticket}")
        raise RuntimeError("connection reset")

    with pytest.raises(EffectInDoubt):
        pay(guard, pay_out, "T-1")
    seen.append("it is in the books")
    with pytest.raises(VerificationFailed, match="it was undone"):
        pay(guard, pay_out, "T-1")
    assert world.effects == ["pay T-1", "undo T-1 paid"]
    assert paid(guard).result_state == "undone"


def test_a_hook_that_is_asked_at_once_refutes_at_once(guard: Guard, world: World) -> None:
    """A yes right after the failure is verified like an answer, and undone like one."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}", reconcile=lambda _call: Happened("paid"))
    @verified_by(lambda _arguments, _result: False)
    @compensated_by(lambda _result, ticket: world.happen(f"undo {ticket}"))
    def pay_out(ticket: str) -> str:
        world.happen(f"pay {ticket}")
        raise RuntimeError("connection reset")

    with pytest.raises(VerificationFailed, match="it was undone"):
        pay(guard, pay_out, "T-1")
    assert world.effects == ["pay T-1", "undo T-1"]


def test_a_refuted_call_is_undone_before_its_run_falls_back(guard: Guard, world: World) -> None:
    """The undo runs while the run may still write; then the ending closes it."""
    shop = Shop(world)
    shop.says = False
    tool = shop.make(falls_back_to("draft"))
    with pytest.raises(FellBack):
        pay(guard, tool, "T-1")
    assert world.effects == ["pay T-1", "undo T-1"]
    assert paid_by(guard, "pay").result_state == "undone"


def paid_by(guard: Guard, tool: str) -> Any:
    """Return the only effect of a tool."""
    (found,) = [e for e in guard.effects.list() if e.tool == tool]
    return found


def test_a_function_that_cannot_be_decorated_is_undone_too(guard: Guard, world: World) -> None:
    """`Guard.protect` takes the undo as an option, alone or with those of `compensated_by`."""

    def pay_out(ticket: str) -> None:
        world.happen(f"pay {ticket}")

    def void(_result: Any, ticket: str) -> None:
        world.happen(f"undo {ticket}")

    given = {"undo": void, "when": "rollback_only"}
    tool = guard.protect(
        pay_out, name="pay", effect="write", key="pay:{ticket}", compensated_by=given
    )
    pay(guard, tool, "T-1")
    assert guard.rollback("r-1", tools=[tool], **BY).done
    assert world.effects == ["pay T-1", "undo T-1"]
    with pytest.raises(ConfigurationError, match="compensated_by has no option 'unless'"):
        guard.protect(
            lambda ticket: None, name="x", effect="write", key="x:{ticket}",
            compensated_by={**given, "unless": 1},
        )  # fmt: skip


def test_a_tool_by_json_schema_is_undone_with_what_it_was_given(guard: Guard, world: World) -> None:
    """Arguments of a schema are plain JSON, and come back as that."""
    seen: list[Any] = []
    schema = {
        "type": "object",
        "properties": {"ticket": {"type": "string"}, "lines": {"type": "array"}},
        "required": ["ticket"],
    }

    def void(result: Any, ticket: str, lines: list[Any]) -> None:
        seen.append((result, ticket, lines))

    tool = guard.protect(
        lambda **given: {"id": given["ticket"]}, name="pay", input_schema=schema, effect="write",
        key="pay:{ticket}", compensated_by=void,
    )  # fmt: skip
    with guard.run("refund", run_id="r-1"):
        tool(ticket="T-1", lines=[{"usd": 1.5}, 2])
    assert guard.rollback("r-1", tools=[tool], **BY).done
    assert seen == [({"id": "T-1"}, "T-1", [{"usd": 1.5}, 2])]
    assert world.effects == []


class Pausing(Host):
    """A runtime that pauses by an exception of its own, as graphs do."""

    name = "pausing"

    class Paused(Exception):
        """What the runtime steers itself by."""

    control_flow = (Paused,)

    def can_pause(self) -> bool:
        """Say that it can."""
        return True

    def pause(self, approval: Any) -> None:
        """Leave the call; the runtime delivers it again."""
        raise self.Paused(approval.id)


def test_an_undo_that_waits_pauses_a_runtime_that_can(guard: Guard, world: World) -> None:
    """The runtime's own pause passes through; when the call is delivered again, it is undone."""
    shop = Shop(world, approval=True)
    shop.says = False
    with pytest.raises(Pausing.Paused), guard.run("w", run_id="r-1", host=Pausing()):
        shop.tool("T-1")
    assert guard.runs.show("r-1").status == "waiting"
    (approval,) = guard.approvals.list("pending")
    guard.approvals.decide(approval.id, "approve", by="fred")
    with (
        pytest.raises(VerificationFailed, match="undone"),
        guard.run("w", run_id="r-1", host=Pausing()),
    ):
        shop.tool("T-1")
    assert world.effects == ["pay T-1", "undo T-1"]


def test_a_verifier_that_is_not_there_has_refuted_nothing(guard: Guard, world: World) -> None:
    """An outage undoes nothing: the effect is in doubt, and people rule."""

    def broken(_arguments: Any, _result: Any) -> bool:
        raise ConnectionError("no answer")

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    @verified_by(broken)
    @compensated_by(lambda _result, ticket: world.happen(f"undo {ticket}"))
    def pay_out(ticket: str) -> None:
        world.happen(f"pay {ticket}")

    with pytest.raises(VerificationFailed):
        pay(guard, pay_out, "T-1")
    assert (world.effects, paid(guard).state) == (["pay T-1"], "in_doubt")
