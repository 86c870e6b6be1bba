"""Plans: what a run may do is said before it does it, held against every call, and told afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard import (
    ApprovalRequired,
    ConfigurationError,
    Guard,
    GuardError,
    NoEffect,
    budget,
    compensated_by,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from agentguard.config import loads
from agentguard.errors import PlanViolation
from agentguard.record import drift
from agentguard.templates import Template
from tests.support import World

TEMPLATES = """agent_run:
  templates:
    refund:
      parameters: [ticket_id, amount_usd]
      steps:
        - tool: issue_refund
          arguments: {ticket_id: "{ticket_id}", amount_usd: "{amount_usd}"}
        - tool: close_ticket
          arguments: {ticket_id: "{ticket_id}"}
"""


class Shop:
    """Tools of a shop, and what they did to the world."""

    def __init__(self, path: Path) -> None:
        self.world = World(path)
        self.failing: list[str] = []

        @tool_contract(effect="read")
        def look_up(ticket_id: str) -> str:
            return f"ticket {ticket_id}"

        @tool_contract(effect="write", sensitive=["iban"])
        @idempotent(key="{ticket_id}")
        def issue_refund(ticket_id: str, amount_usd: Decimal, iban: str = "") -> str:
            del iban
            return self._act("refund", ticket_id, amount_usd)

        @tool_contract(effect="write")
        @idempotent(per="call")
        def close_ticket(ticket_id: str) -> str:
            return self._act("close", ticket_id)

        self.look_up, self.refund, self.close = look_up, issue_refund, close_ticket

    def _act(self, what: str, *about: Any) -> str:
        if what in self.failing:
            self.failing.remove(what)
            raise NoEffect("busy")
        return self.world.happen(" ".join([what, *map(str, about)]))


@pytest.fixture(name="shop")
def a_shop(tmp_path: Path) -> Shop:
    """Give tools whose effects stand in a file."""
    return Shop(tmp_path / "world")


@pytest.fixture(name="guard")
def guard_of_a_file(tmp_path: Path) -> Iterator[Guard]:
    """Open a store in a file, under a configuration with a template."""
    guard = Guard(f"sqlite:///{tmp_path / 'store.db'}", config=loads(TEMPLATES))
    yield guard
    guard.close()


def step(tool: str, repeat: int = 1, **arguments: Any) -> dict[str, Any]:
    """Write one step of a plan."""
    return {"tool": tool, "arguments": arguments, "repeat": repeat}


def refusal(call: Callable[..., Any], *args: Any) -> str:
    """Return what a call is refused with, or nothing."""
    try:
        call(*args)
    except GuardError as error:
        return error.kind
    return ""


def starts(guard: Guard, run_id: str) -> list[tuple[str, str | None, int | None]]:
    """Read which tools started, and how each stood to the plan."""
    return [
        (event.data["tool"], event.data.get("plan"), event.data.get("plan_step"))
        for event in guard.runs.events(run_id)
        if event.kind == "step.started"
    ]


def test_a_call_outside_a_refusing_plan_never_starts(guard: Guard, shop: Shop) -> None:
    """What the plan does not name is refused before the body, and the refusal is on record."""
    with guard.run("refunds", run_id="r-1") as run:
        run.plan([step("issue_refund", ticket_id="T-1")], outside="refuse")
        with pytest.raises(PlanViolation, match="issue_refund was not started: the plan of this"):
            shop.refund("T-2", Decimal(5))
        shop.refund("T-1", Decimal(5))
    assert shop.world.effects == ["refund T-1 5"]
    denied = [e.data for e in guard.runs.events("r-1") if e.data.get("decision") == "deny"]
    assert [(d["tool"], d["error"]) for d in denied] == [("issue_refund", "plan_violation")]


def test_a_planned_step_is_used_once(guard: Guard, shop: Shop) -> None:
    """A step lets one call pass; the next one with the same arguments is outside the plan."""
    with guard.run("refunds", run_id="r-1") as run:
        run.plan([step("close_ticket", ticket_id="T-1")], outside="refuse")
        assert [refusal(shop.close, "T-1") for _ in range(3)] == ["", *["plan_violation"] * 2]
    assert shop.world.effects == ["close T-1"]


def test_a_step_may_be_meant_several_times(guard: Guard, shop: Shop) -> None:
    """`repeat` lets as many calls pass."""
    with guard.run("refunds") as run:
        run.plan([step("close_ticket", repeat=2)], outside="refuse")
        assert [refusal(shop.close, f"T-{n}") for n in range(3)] == ["", "", "plan_violation"]


def test_parallel_calls_do_not_share_a_step(guard: Guard, shop: Shop) -> None:
    """Of eight calls at once that fit three planned ones, three start."""
    with guard.run("refunds") as run:
        run.plan([step("close_ticket", repeat=3)], outside="refuse")

        def close(number: int) -> str:
            with guard.run("refunds", run_id=run.id, join=True):
                return refusal(shop.close, f"T-{number}")

        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(close, range(8)))
    assert said.count("") == 3
    assert len(shop.world.effects) == 3


def test_arguments_that_a_step_does_not_name_are_free(guard: Guard, shop: Shop) -> None:
    """A step holds only what it names."""
    with guard.run("refunds") as run:
        run.plan([step("issue_refund", ticket_id="T-1")], outside="refuse")
        shop.refund("T-1", Decimal("12.50"))
    assert shop.world.effects == ["refund T-1 12.50"]


@pytest.mark.parametrize("planned", [20, 20.0, "20", "20.00", Decimal("20.0")])
def test_an_amount_is_the_same_in_every_spelling(guard: Guard, shop: Shop, planned: Any) -> None:
    """A planned amount is met by the same number, however it was written."""
    with guard.run("refunds") as run:
        run.plan([step("issue_refund", amount_usd=planned)], outside="refuse")
        shop.refund("T-1", Decimal("20.00"))
        assert refusal(shop.refund, "T-2", Decimal("20.01")) == "plan_violation"


def test_a_text_is_only_itself(guard: Guard, shop: Shop) -> None:
    """An id that spells the same number as a planned one is another id."""
    with guard.run("refunds") as run:
        run.plan([step("close_ticket", ticket_id="20")], outside="refuse")
        assert refusal(shop.close, "020") == "plan_violation"
        assert refusal(shop.close, "20.0") == "plan_violation"
        assert refusal(shop.close, "20") == ""


def test_a_call_outside_can_be_noted(guard: Guard, shop: Shop) -> None:
    """With `note` everything runs, and the record says what was not planned."""
    with guard.run("refunds", run_id="r-1") as run:
        run.plan([step("issue_refund")], outside="note")
        shop.refund("T-1", Decimal(5))
        shop.close("T-1")
    assert starts(guard, "r-1") == [
        ("issue_refund", None, 1), ("close_ticket", "outside", None),
    ]  # fmt: skip


def test_a_call_outside_can_ask(guard: Guard, shop: Shop) -> None:
    """With `ask` a person decides on what was not planned, and what they approved starts once."""
    with guard.run("refunds", run_id="r-1") as run:
        run.plan([step("issue_refund", ticket_id="T-1")])
        with pytest.raises(ApprovalRequired) as waiting:
            shop.refund("T-2", Decimal(5))
    assert waiting.value.approval.rule == "outside the plan"
    assert guard.runs.show("r-1").status == "waiting"
    guard.approvals.decide(waiting.value.approval.id, "approve", by="maria")
    with guard.run("refunds", run_id="r-1"):
        shop.refund("T-2", Decimal(5))
    assert shop.world.effects == ["refund T-2 5"]


def test_what_was_asked_stays_asked(guard: Guard, shop: Shop) -> None:
    """A call that waits because of a plan waits on when another plan would let it pass."""
    with guard.run("refunds", run_id="r-1") as run:
        run.plan([step("issue_refund", ticket_id="T-1")])
        assert refusal(shop.refund, "T-2", Decimal(5)) == "approval_required"
        run.plan([step("issue_refund")], reason="T-2 after all")
        assert refusal(shop.refund, "T-2", Decimal(5)) == "approval_required"
    assert shop.world.effects == []


def test_a_plan_survives_a_resume(guard: Guard, shop: Shop) -> None:
    """What was used up before a resume is used up after it; the plan need not be set again."""
    with guard.run("refunds", run_id="r-1") as run:
        run.plan([step("close_ticket", repeat=2)], outside="refuse")
        shop.close("T-1")
    with guard.run("refunds", run_id="r-1"):
        assert [refusal(shop.close, f"T-{n}") for n in (2, 3)] == ["", "plan_violation"]


def test_the_same_plan_again_goes_on(guard: Guard, shop: Shop) -> None:
    """A script that sets its plan at every start does not get its steps back."""
    for ticket, expected in (("T-1", ""), ("T-2", "plan_violation")):
        with guard.run("refunds", run_id="r-1") as run:
            run.plan([step("close_ticket")], outside="refuse")
            assert refusal(shop.close, ticket) == expected
    assert [e.kind for e in guard.runs.events("r-1")].count("plan.set") == 1


def test_a_plan_holds_in_a_process_that_never_heard_of_it(
    guard: Guard, shop: Shop, tmp_path: Path
) -> None:
    """Somebody who is in the run already is bound by a plan that another sets meanwhile."""
    other = Guard(f"sqlite:///{tmp_path / 'store.db'}")
    with guard.run("refunds", run_id="r-1") as run:
        shop.close("T-0")
        with other.run("refunds", run_id="r-1", join=True) as same:
            same.plan([step("issue_refund")], outside="refuse")
        with pytest.raises(PlanViolation):
            shop.close("T-1")
    other.close()
    assert run.plans.progress is not None
    assert shop.world.effects == ["close T-0"]


def test_a_second_plan_needs_a_reason(guard: Guard, shop: Shop) -> None:
    """A plan replaces another only with a reason; both stay in the record."""
    with guard.run("refunds", run_id="r-1") as run:
        run.plan([step("issue_refund", ticket_id="T-1")], outside="refuse")
        with pytest.raises(ConfigurationError, match="give reason= to replace it"):
            run.plan([step("close_ticket")], outside="refuse")
        run.plan([step("close_ticket")], outside="refuse", reason="the customer called")
        shop.close("T-1")
        assert refusal(shop.refund, "T-1", Decimal(1)) == "plan_violation"
    plans = [event for event in guard.runs.events("r-1") if event.kind == "plan.set"]
    assert [plan.content["reason"] for plan in plans if plan.content] == ["", "the customer called"]
    assert plans[1].data["replaces"] == plans[0].seq


def test_what_is_known_not_to_have_happened_gives_its_step_back(guard: Guard, shop: Shop) -> None:
    """A call that had no effect used nothing up: another one may do the step."""
    shop.failing = ["close"]
    with guard.run("refunds") as run:
        run.plan([step("close_ticket", ticket_id="T-1")], outside="refuse")
        with pytest.raises(NoEffect):
            shop.close("T-1")
        assert [refusal(shop.close, "T-1") for _ in range(2)] == ["", "plan_violation"]


def test_an_ordered_plan_keeps_its_order(guard: Guard, shop: Shop) -> None:
    """A step starts only after all steps before it have happened."""
    shop.failing = ["refund"]
    with guard.run("refunds") as run:
        run.plan([step("issue_refund"), step("close_ticket")], outside="refuse", ordered=True)
        with pytest.raises(PlanViolation, match="after steps that are not done yet"):
            shop.close("T-1")
        with pytest.raises(NoEffect):
            shop.refund("T-1", Decimal(1))
        assert refusal(shop.close, "T-1") == "plan_violation"
        shop.refund("T-1", Decimal(1))
        shop.close("T-1")
    assert shop.world.effects == ["refund T-1 1", "close T-1"]


def test_a_replay_does_its_step(guard: Guard, shop: Shop) -> None:
    """A step whose effect an earlier run had already counts as done, and nothing runs."""
    with guard.run("refunds"):
        shop.refund("T-1", Decimal(1))
    with guard.run("refunds") as run:
        run.plan([step("issue_refund"), step("close_ticket")], outside="refuse", ordered=True)
        shop.refund("T-1", Decimal(1))
        shop.close("T-1")
    assert shop.world.effects == ["refund T-1 1", "close T-1"]


def test_equal_steps_are_replayed_one_by_one(guard: Guard, shop: Shop) -> None:
    """Two replays that fit equal steps do both of them."""
    for ticket in ("T-1", "T-2"):
        with guard.run("refunds"):
            shop.refund(ticket, Decimal(1))
    with guard.run("refunds") as run:
        plan = [step("issue_refund"), step("issue_refund"), step("close_ticket")]
        run.plan(plan, outside="refuse", ordered=True)
        shop.refund("T-1", Decimal(1))
        assert refusal(shop.close, "T-1") == "plan_violation"
        shop.refund("T-2", Decimal(1))
        shop.close("T-1")


def test_a_step_that_was_refuted_is_not_done(guard: Guard, shop: Shop) -> None:
    """What a verifier refutes, and what is undone, does no step: the path ends there."""

    @tool_contract(effect="write")
    @idempotent(key="{order}")
    @verified_by(lambda _arguments, _result: False)
    @compensated_by(lambda _result, order: shop.world.happen(f"unship {order}"))
    def ship(order: str) -> str:
        return shop.world.happen(f"ship {order}")

    with guard.run("refunds", run_id="r-1") as run:
        run.plan([{"tool": ship}, step("close_ticket")], outside="refuse", ordered=True)
        assert refusal(ship, "O-1") == "verification_failed"
        assert refusal(shop.close, "T-1") == "plan_violation"
    found = drift(guard.runs.events("r-1"))
    assert found is not None
    assert [missing.tool for missing in found.missing] == ["ship", "close_ticket"]
    assert shop.world.effects == ["ship O-1", "unship O-1"]


def test_what_was_undone_gives_its_step_back(guard: Guard, shop: Shop) -> None:
    """After an undo the planned step may be done again, once, under another key."""

    @tool_contract(effect="write")
    @idempotent(key="{order}:{size}")
    @verified_by(lambda arguments, _result: arguments["size"] == "L")
    @compensated_by(lambda _result, size: shop.world.happen(f"unship {size}"))
    def ship(order: str, size: str) -> str:
        return shop.world.happen(f"ship {size}")

    with guard.run("refunds", run_id="r-1") as run:
        run.plan([{"tool": ship, "arguments": {"order": "O-1"}}], outside="refuse")
        assert refusal(ship, "O-1", "S") == "verification_failed"
        ship("O-1", "L")
        assert refusal(ship, "O-1", "XL") == "plan_violation"
    assert shop.world.effects == ["ship S", "unship S", "ship L"]


def test_what_is_rolled_back_is_not_done_any_more(guard: Guard, shop: Shop) -> None:
    """A step that an operator has undone stands as not done."""

    @tool_contract(effect="write")
    @idempotent(key="{order}")
    @compensated_by(lambda _result, order: shop.world.happen(f"unship {order}"))
    def ship(order: str) -> str:
        return shop.world.happen(f"ship {order}")

    with guard.run("refunds", run_id="r-1") as run:
        run.plan([{"tool": ship}], outside="refuse")
        ship("O-1")
    guard.rollback("r-1", tools=[ship], by="dana", reason="the wrong one")
    found = drift(guard.runs.events("r-1"))
    assert found is not None
    assert ([step.number for step in found.missing], found.refused) == ([1], ())
    assert shop.world.effects == ["ship O-1", "unship O-1"]


def test_reads_are_free_unless_they_are_planned_too(guard: Guard, shop: Shop) -> None:
    """A plan binds writes; with `reads=True` it binds reads as well."""
    with guard.run("refunds") as run:
        run.plan([step("issue_refund")], outside="refuse")
        assert shop.look_up("T-1") == "ticket T-1"
        plan = [step("issue_refund"), step("look_up", ticket_id="T-1")]
        run.plan(plan, outside="refuse", reads=True, reason="stricter")
        assert refusal(shop.look_up, "T-2") == "plan_violation"
        assert shop.look_up("T-1") == "ticket T-1"
        assert refusal(shop.look_up, "T-1") == "plan_violation"


def test_a_read_outside_the_plan_can_ask(guard: Guard, shop: Shop) -> None:
    """A read that people have to decide on is the same one when it comes back."""
    with guard.run("refunds", run_id="r-1") as run:
        run.plan([step("issue_refund")], reads=True)
        with pytest.raises(ApprovalRequired) as waiting:
            shop.look_up("T-1")
    guard.approvals.decide(waiting.value.approval.id, "approve", by="maria")
    with guard.run("refunds", run_id="r-1"):
        assert shop.look_up("T-1") == "ticket T-1"


def test_sensitive_arguments_of_a_plan_are_not_on_record(guard: Guard, shop: Shop) -> None:
    """A planned value of a sensitive argument is hidden, and still held against the calls."""
    with guard.run("refunds", run_id="r-1") as run:
        run.plan([{"tool": shop.refund, "arguments": {"iban": "DE-4711"}}], outside="refuse")
        assert refusal(shop.refund, "T-1", Decimal(1), "DE-4712") == "plan_violation"
        shop.refund("T-1", Decimal(1), "DE-4711")
    told = [(event.data, event.content) for event in guard.runs.events("r-1")]
    assert "DE-4711" not in repr(told)
    assert "issue_refund" in repr(told)


def test_what_a_person_changed_keeps_its_place(guard: Guard, shop: Shop) -> None:
    """A planned call whose arguments an approver edited is still the planned call."""

    @tool_contract(effect="write")
    @idempotent(key="{order}")
    @requires_approval(allow_edit=True)
    def pay(order: str, usd: Decimal) -> str:
        return shop.world.happen(f"pay {order} {usd}")

    with guard.run("refunds", run_id="r-1") as run:
        run.plan([{"tool": pay, "arguments": {"usd": 100}}], outside="refuse")
        with pytest.raises(ApprovalRequired) as waiting:
            pay("O-1", Decimal(100))
    name = waiting.value.approval.id
    guard.approvals.decide(name, "edit", by="ann", edits={"usd": "60"})
    guard.approvals.decide(name, "approve", by="bob")
    with guard.run("refunds", run_id="r-1"):
        pay("O-1", Decimal(100))
    assert shop.world.effects == ["pay O-1 60"]


@pytest.mark.parametrize(
    ("said", "configured", "counts"),
    [
        (None, None, "ask"), (None, "refuse", "refuse"), (None, "note", "note"),
        ("note", "ask", "ask"), ("refuse", "note", "refuse"), ("note", None, "note"),
    ],
)  # fmt: skip
def test_the_stricter_word_counts(said: str | None, configured: str | None, counts: str) -> None:
    """Of what code and configuration say of calls outside, the stricter holds."""
    text = f"agent_run:\n  plans: {{outside: {configured}}}\n" if configured else TEMPLATES
    guard = Guard("memory://", config=loads(text))
    with guard.run("refunds", run_id="r-1") as run:
        run.plan([step("close_ticket")], outside=said)
    found = drift(guard.runs.events("r-1"))
    guard.close()
    assert found is not None
    assert found.policy == counts


@pytest.mark.parametrize(
    ("steps", "options", "says"),
    [
        ("close_ticket", {}, "a plan is a list of steps"),
        ([], {}, "a plan has from 1 to 1000 steps"),
        ([{"arguments": {}}], {}, "plan, step 1: a step is a dict with tool"),
        ([{"tool": "x", "when": 1}], {}, "plan, step 1: a step is a dict with tool"),
        ([{"tool": ""}], {}, "plan, step 1: tool is a tool's name"),
        ([{"tool": "x", "repeat": 0}], {}, "plan, step 1: repeat is a whole number from 1"),
        ([{"tool": "x", "arguments": {"a": object()}}], {}, "plan, step 1: .*has no JSON form"),
        ([{"tool": "x"}], {"outside": "allow"}, "outside is note, ask, refuse; not 'allow'"),
    ],
)
def test_a_plan_that_is_none_is_refused(
    guard: Guard, steps: Any, options: dict[str, Any], says: str
) -> None:
    """What cannot be held against calls is refused with the sentence that mends it."""
    with guard.run("refunds") as run, pytest.raises(ConfigurationError, match=says):
        run.plan(steps, **options)


def test_a_plan_that_misnames_an_argument_is_refused(guard: Guard, shop: Shop) -> None:
    """Where the tool is known, so are its arguments."""
    with guard.run("refunds") as run, pytest.raises(ConfigurationError, match="has no argument"):
        run.plan([{"tool": shop.close, "arguments": {"ticket": "T-1"}}])


def test_a_run_that_is_not_entered_takes_no_plan(guard: Guard) -> None:
    """A plan belongs to the record, and that begins when the run is entered."""
    with pytest.raises(ConfigurationError, match="is not entered yet"):
        guard.run("refunds").plan([step("close_ticket")])


async def test_a_plan_on_an_event_loop(guard: Guard, shop: Shop) -> None:
    """`aplan` and `afollow` are the same without blocking the loop."""
    async with guard.run("refunds") as run:
        await run.aplan([step("issue_refund")], outside="refuse")
        assert refusal(shop.close, "T-1") == "plan_violation"
        await run.afollow("refund", ticket_id="T-1", amount_usd=5)
        shop.refund("T-1", Decimal(5))


def test_a_template_takes_the_place_of_free_choice(guard: Guard, shop: Shop) -> None:
    """`follow` lets the steps of a template pass, in their order, and nothing else."""
    with guard.run("refunds") as run:
        run.follow("refund", ticket_id="T-1", amount_usd=Decimal("20.50"))
        assert refusal(shop.close, "T-1") == "plan_violation"
        assert refusal(shop.refund, "T-1", Decimal(21)) == "plan_violation"
        shop.refund("T-1", Decimal("20.50"))
        assert refusal(shop.close, "T-2") == "plan_violation"
        shop.close("T-1")
        with pytest.raises(PlanViolation, match="the template refund has no step left for it"):
            shop.close("T-1")
    assert shop.world.effects == ["refund T-1 20.50", "close T-1"]


def test_a_template_in_code(shop: Shop) -> None:
    """`Guard(templates=)` adds templates; placeholders stand for values inside texts, too."""
    template = Template("farewell", [step("close_ticket", ticket_id="T-{number}")], ["number"])
    guard = Guard("memory://", templates=[template])
    with guard.run("refunds") as run:
        run.follow("farewell", number=7)
        shop.close("T-7")
    guard.close()
    assert shop.world.effects == ["close T-7"]


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("refnd", {}, "there is no template 'refnd'; there are: refund"),
        ("refund", {"ticket_id": "T-1"}, "template refund needs amount_usd"),
        ("refund", {"ticket_id": "T-1", "amount_usd": 1, "x": 2}, "template refund has no x"),
    ],
)
def test_a_template_followed_wrongly_is_refused(
    guard: Guard, name: str, parameters: dict[str, Any], says: str
) -> None:
    """A template that is not there, or other parameters than it has, are refused by name."""
    with guard.run("refunds") as run, pytest.raises(ConfigurationError, match=says):
        run.follow(name, **parameters)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            '{ticket_id: "{ticket_id}", a',
            '{ticket_id: "{ticket}", a',
            "{ticket} is none of its parameters; did you mean 'ticket_id'?",
        ),
        (
            "[ticket_id, amount_usd]",
            "[ticket_id, amount_usd, note]",
            "agent_run.yaml:3: templates.refund cannot be followed: the parameter note stands in no step",
        ),
        ('"{amount_usd}"', '"{amount_usd.real}"', "holds more than the name of a parameter"),
        (
            "- tool: close_ticket",
            "- tol: close_ticket",
            "agent_run.yaml:8: templates.refund.steps.1.tol is not a known key; did you mean 'tool'?",
        ),
    ],
)
def test_a_template_in_a_file_is_checked_when_it_is_read(old: str, new: str, says: str) -> None:
    """Placeholders, parameters and keys that do not fit are refused with file and line."""
    assert old in TEMPLATES
    with pytest.raises(ConfigurationError) as refused:
        loads(TEMPLATES.replace(old, new))
    assert says in refused.value.message


def test_a_template_is_checked_with_the_tools(guard: Guard, shop: Shop) -> None:
    """`Guard.check` finds tools that are not there, and arguments that they do not have."""

    @tool_contract(effect="write", name="issue_refund")
    @idempotent(per="call")
    def other(ticket: str) -> str:
        return ticket

    assert guard.check([shop.refund, shop.close]) == []
    assert guard.check([other])[0].startswith(
        "agent_run.yaml:6: template refund gives issue_refund the argument 'ticket_id'; it has ticket"
    )


def test_a_template_that_calls_no_known_tool_is_found(shop: Shop) -> None:
    """A tool that nobody has given is named with its place in the file."""
    guard = Guard("memory://", config=loads(TEMPLATES))
    (problem,) = guard.check([shop.refund])
    assert problem.startswith(
        "agent_run.yaml:8: template refund calls 'close_ticket', which is no tool here"
    )
    guard.close()


def test_a_plan_costs_nothing_where_there_is_none(guard: Guard, shop: Shop) -> None:
    """The record of a run without a plan has no word about plans."""
    with guard.run("refunds", run_id="r-1"):
        shop.close("T-1")
    assert "plan" not in repr([event.data for event in guard.runs.events("r-1")])


def test_budgets_and_plans_refuse_each_for_itself(guard: Guard, shop: Shop) -> None:
    """A planned call still needs room in the budget."""

    @tool_contract(effect="write")
    @idempotent(per="call")
    @budget(max_calls=1)
    def ship(order: str) -> str:
        return shop.world.happen(f"ship {order}")

    with guard.run("refunds") as run:
        run.plan([step("ship", repeat=2)], outside="refuse")
        assert [refusal(ship, "O-1") for _ in range(2)] == ["", "budget_exceeded"]


def test_plans_hold_on_a_server(postgres_url: str, shop: Shop) -> None:
    """On PostgreSQL, too, callers with connections of their own share no step, and refusals hold."""
    guards = [Guard(postgres_url) for _ in range(4)]
    with guards[0].run("refunds", run_id="r-1") as run:
        run.plan([step("close_ticket", repeat=3)], outside="refuse")

        def close(number: int) -> str:
            with guards[number % 4].run("refunds", run_id="r-1", join=True):
                return refusal(shop.close, f"T-{number}")

        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(close, range(12)))
        assert refusal(shop.refund, "T-1", Decimal(1)) == "plan_violation"
    for guard in guards:
        guard.close()
    assert said.count("") == 3
    assert len(shop.world.effects) == 3


TICKETS = ("T-1", "T-2", None)
"""Tickets of a step; None leaves it free."""
planned_steps = st.lists(
    st.tuples(st.sampled_from(TICKETS), st.integers(1, 2)), min_size=1, max_size=4
)
made_calls = st.lists(
    st.tuples(st.sampled_from(("T-1", "T-2", "T-3")), st.booleans(), st.booleans()), max_size=10
)


def can_be_assigned(done: list[str], slots: list[str | None]) -> bool:
    """Tell whether each call has a slot of its own that it fits."""
    if not done:
        return True
    first, rest = done[0], done[1:]
    return any(
        slot in (None, first) and can_be_assigned(rest, slots[:at] + slots[at + 1 :])
        for at, slot in enumerate(slots)
    )


@given(planned=planned_steps, made=made_calls)
@settings(max_examples=60)
def test_nothing_happens_that_no_plan_has_a_place_for(
    planned: list[tuple[str | None, int]], made: list[tuple[str, bool, bool]]
) -> None:
    """Whatever calls come, fail and resume: each effect has a planned step of its own."""
    guard, happened = Guard("memory://"), list[str]()

    @tool_contract(effect="write")
    @idempotent(per="call")
    def close(ticket: str, number: int, *, fails: bool) -> int:
        if fails:
            raise NoEffect("busy")
        happened.append(ticket)
        return number

    plan = [
        step("close", repeat, **({} if ticket is None else {"ticket": ticket}))
        for ticket, repeat in planned
    ]
    run: Any = guard.run("refunds", run_id="r-1").__enter__()
    run.plan(plan, outside="refuse")
    for number, (ticket, fails, resumes) in enumerate(made):
        with contextlib.suppress(PlanViolation, NoEffect):
            close(ticket, number, fails=fails)
        if resumes:
            run.__exit__(None, None, None)
            run = guard.run("refunds", run_id="r-1").__enter__()
    run.__exit__(None, None, None)
    guard.close()
    assert can_be_assigned(happened, [t for t, repeat in planned for _ in range(repeat)])
