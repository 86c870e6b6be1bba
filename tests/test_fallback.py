"""Safe endings: what a run does instead of a call that cannot be made, and that it stops then."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hmac
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agentguard import (
    ConfigurationError,
    DecisionRefused,
    EffectInDoubt,
    Guard,
    GuardError,
    NoEffect,
    Principal,
    Retry,
    RunHalted,
    budget,
    compensated_by,
    current_run,
    falls_back_to,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from agentguard.errors import FellBack
from agentguard.fallback import Fallback
from agentguard.model import EffectState, Ending
from agentguard.tickets import FileTickets, Ticket, WebhookTickets
from tests.support import World


@pytest.fixture(name="guard")
def guard_with_tickets(tmp_path: Path) -> Iterator[Guard]:
    """A guard that files tickets in a file."""
    guard = Guard(f"sqlite:///{tmp_path}/store.db", tickets=FileTickets(tmp_path / "tickets"))
    yield guard
    guard.close()


@pytest.fixture(name="world")
def world_of_its_own(tmp_path: Path) -> World:
    """Where effects happen."""
    return World(tmp_path / "world.txt")


def filed(tmp_path: Path) -> list[dict[str, Any]]:
    """Read the tickets of this test."""
    path = tmp_path / "tickets"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def writer(
    body: Callable[[str], Any], *policies: Any, name: str = "pay", **contract: Any
) -> Callable[[str], Any]:
    """Guard *body* as a write with one effect for each ticket."""
    contract = {"effect": "write", "name": name, **contract}
    tool: Any = _async(body) if contract.pop("is_async", False) else _sync(body)
    for policy in (*policies, idempotent(key=f"{name}:{{ticket}}"), tool_contract(**contract)):
        tool = policy(tool)
    return tool  # type: ignore[no-any-return]


def _sync(body: Callable[[str], Any]) -> Any:
    def tool(ticket: str) -> Any:
        return body(ticket)

    return tool


def _async(body: Callable[[str], Any]) -> Any:
    async def tool(ticket: str) -> Any:
        end = body(ticket)
        return await end if asyncio.iscoroutine(end) else end

    return tool


def lost(_ticket: str) -> str:
    """Act, perhaps."""
    raise ConnectionResetError("while waiting for the answer")


def fine(ticket: str) -> str:
    """Act."""
    return f"paid {ticket}"


def refused(to: str) -> Callable[[str], Any]:
    """Make a write that its budget refuses, and that leaves no doubt to close its run by itself."""
    return writer(fine, falls_back_to(to), budget(max_calls=0))


def called(tool: Callable[[str], Any], ticket: str = "T-1") -> GuardError:
    """Call a tool that is refused or fails; return its error."""
    try:
        end = tool(ticket)
        if asyncio.iscoroutine(end):
            end = asyncio.run(_finish(end))
    except GuardError as error:
        return error
    raise AssertionError(f"it returned {end!r}")


async def _finish(end: Any) -> Any:
    return await end


def told(guard: Guard, run_id: str = "r") -> list[dict[str, Any]]:
    """Return what the record says of endings, in order."""
    return [dict(e.data) for e in guard.runs.events(run_id) if e.kind == "fallback"]


# What each ending is.


def test_a_draft_keeps_the_call_that_was_not_made(guard: Guard) -> None:
    """A draft holds tool, arguments and cause, and its reference names run and step."""
    pay = writer(lost, falls_back_to("draft"))
    with guard.run("w", run_id="r"):
        error = called(pay)
    assert isinstance(error, FellBack)
    assert (error.ending, error.reference, error.cause_kind) == ("draft", "r/1", "effect_in_doubt")
    ending = guard.runs.show("r").ending
    assert ending == Ending(
        kind="draft", reference="r/1", cause="effect_in_doubt", tool="pay", step=1,
        arguments={"ticket": "T-1"},
    )  # fmt: skip


def test_the_error_that_led_to_an_ending_is_its_cause(guard: Guard) -> None:
    """Whoever catches the ending finds the doubt behind it, with the effect to rule on."""
    pay = writer(lost, falls_back_to("draft"))
    with guard.run("w", run_id="r"):
        error = called(pay)
    assert isinstance(error.__cause__, EffectInDoubt)
    assert guard.effects.show(error.__cause__.effect_id).state is EffectState.IN_DOUBT
    assert error.halts


def test_a_ticket_is_filed_and_its_number_told(guard: Guard, tmp_path: Path) -> None:
    """The ticket says which call was given up, why, and which effect is in doubt."""
    pay = writer(lost, falls_back_to("ticket"))
    who = Principal(agent="refunds", subject="kim")
    with guard.run("w", run_id="r", principal=who):
        error = called(pay)
    (ticket,) = filed(tmp_path)
    assert isinstance(error, FellBack)
    assert error.reference == ticket["reference"]
    assert (ticket["tool"], ticket["arguments"], ticket["because"], ticket["step"]) == (
        "pay", {"ticket": "T-1"}, "effect_in_doubt", 1,
    )  # fmt: skip
    assert (ticket["agent"], ticket["on_behalf_of"]) == ("refunds", "kim")
    assert guard.effects.show(ticket["effect_id"]).tool == "pay"


def test_filing_a_ticket_is_an_effect_of_its_own(guard: Guard) -> None:
    """The ledger has a row for the ticket, under a key of the run, with its number as result."""
    pay = writer(lost, falls_back_to("ticket"))
    with guard.run("w", run_id="r"):
        error = called(pay)
    effect = guard.effects.show("fallback/r/1")
    assert isinstance(error, FellBack)
    assert (effect.tool, effect.state, effect.fence) == ("pay.ticket", EffectState.SUCCEEDED, 1)
    assert json.loads(effect.result[1:]) == error.reference


def test_a_ticket_uses_up_nothing_of_the_budget(guard: Guard, tmp_path: Path) -> None:
    """A run whose calls are used up still files its ticket, and counts no call for it."""
    pay = writer(fine, falls_back_to("ticket"))
    with guard.run("w", run_id="r", max_tool_calls=1, max_steps=1):
        pay("T-1")
        error = called(pay, "T-2")
    assert (error.kind, len(filed(tmp_path))) == ("fell_back", 1)
    assert (guard.runs.show("r").tool_calls, guard.runs.show("r").steps) == (1, 1)


def test_a_question_waits_for_a_person(guard: Guard) -> None:
    """A run that asked is waiting, and its question can be read."""
    pay = writer(lost, falls_back_to("ask", question="Which account is it?"))
    with guard.run("w", run_id="r"):
        error = called(pay)
    run = guard.runs.show("r")
    assert isinstance(error, FellBack)
    assert (error.ending, run.status, run.error) == ("ask", "waiting", None)
    assert run.ending is not None
    assert (run.ending.text, run.ending.answer) == ("Which account is it?", None)


def test_a_question_may_be_made_of_the_call(guard: Guard) -> None:
    """A callable question gets the arguments and the error."""
    fallback = falls_back_to("ask", question=lambda a, e: f"{a['ticket']} after {e.kind}?")
    with guard.run("w", run_id="r"):
        called(writer(lost, fallback))
    ending = guard.runs.show("r").ending
    assert ending is not None
    assert ending.text == "T-1 after effect_in_doubt?"


def test_a_question_that_cannot_be_made_is_asked_plainly(guard: Guard) -> None:
    """A broken callable leaves the plain question; the run asks all the same."""
    fallback = falls_back_to("ask", question=lambda _arguments, _error: str(1 // 0))
    with guard.run("w", run_id="r"):
        called(writer(lost, fallback))
    ending = guard.runs.show("r").ending
    assert ending is not None
    assert "pay was given up (effect_in_doubt)" in ending.text


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_what_a_fallback_of_ones_own_returns_is_recorded(guard: Guard, *, is_async: bool) -> None:
    """A callable gets arguments and error; its name is the ending and its return the text."""

    def hand_over(arguments: Any, error: GuardError) -> str:
        return f"{arguments['ticket']} handed over after {error.kind}"

    async def hand_over_soon(arguments: Any, error: GuardError) -> str:
        return hand_over(arguments, error)

    fallback = falls_back_to(hand_over_soon if is_async else hand_over)
    with guard.run("w", run_id="r"):
        error = called(writer(lost, fallback, is_async=is_async))
    ending = guard.runs.show("r").ending
    assert isinstance(error, FellBack)
    assert ending is not None
    assert ending.text == "T-1 handed over after effect_in_doubt"
    assert error.ending == ending.kind == ("hand_over_soon" if is_async else "hand_over")


def test_a_fallback_of_ones_own_may_name_what_it_made(guard: Guard) -> None:
    """An `Ending` that a callable returns gives the reference and the text."""
    fallback = falls_back_to(lambda _a, _e: Ending("mail", reference="M-1", text="sent"))
    with guard.run("w", run_id="r"):
        error = called(writer(lost, fallback))
    assert isinstance(error, FellBack)
    assert error.reference == "M-1"


def test_a_fallback_that_breaks_leaves_a_draft(guard: Guard) -> None:
    """What a broken callable did is in doubt, and the call is written down."""
    fallback = falls_back_to(lambda _a, _e: 1 // 0)
    with guard.run("w", run_id="r"):
        error = called(writer(lost, fallback))
    ending = guard.runs.show("r").ending
    assert isinstance(error, FellBack)
    assert ending is not None
    assert (error.ending, "ZeroDivisionError" in ending.why) == ("draft", True)
    assert guard.effects.show("fallback/r/1").state is EffectState.IN_DOUBT


def test_a_fallback_of_ones_own_may_call_guarded_tools(guard: Guard, world: World) -> None:
    """Guarded calls of a callable are effects of the run that is about to end."""
    notify = writer(world.happen, name="notify")
    pay = writer(fine, falls_back_to(lambda a, _e: notify(a["ticket"])), budget(max_calls=0))
    with guard.run("w", run_id="r"):
        error = called(pay)
    assert (error.kind, world.effects) == ("fell_back", ["T-1"])


@pytest.mark.parametrize("kind", ["draft", "ticket", "ask"])
def test_no_secret_gets_into_an_ending(guard: Guard, tmp_path: Path, kind: str) -> None:
    """Sensitive arguments are hidden in drafts, tickets and questions, also where errors repeat them."""

    def leak(ticket: str) -> str:
        raise ConnectionResetError(f"no answer for {ticket}")

    question = (lambda a, e: f"{a} {e.__cause__}") if kind == "ask" else None
    pay = writer(leak, falls_back_to(kind, question=question), sensitive=("ticket",))
    with guard.run("w", run_id="r"):
        called(pay, "hunter2-secret")
    shown = json.dumps([str(guard.runs.show("r")), filed(tmp_path), told(guard)])
    shown += str([e.content for e in guard.runs.events("r")])
    assert "hunter2-secret" not in shown
    assert "[hidden]" in shown


# What leads to an ending.


async def late(_ticket: str) -> str:
    """Take too long."""
    await asyncio.sleep(5)
    return "late"


def again_and_again(tool: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make the same call three times."""
    return lambda ticket: [tool(ticket) for _ in range(3)]


def down(_ticket: str) -> str:
    """Do nothing."""
    raise NoEffect("down")


def again_after_a_failure(tool: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make a call that fails, and then once more."""

    def twice(ticket: str) -> Any:
        with contextlib.suppress(NoEffect):
            tool(ticket)
        return tool(ticket)

    return twice


def beside_the_plan(tool: Callable[[str], Any]) -> Callable[[str], Any]:
    """Give the run a plan without the call."""

    def unplanned(ticket: str) -> Any:
        plan = [{"tool": "other", "arguments": {"ticket": "T-9"}}]
        current_run().plan(plan, outside="refuse")
        return tool(ticket)

    return unplanned


REASONS: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "effect_in_doubt": (lambda f: writer(lost, f), {}),
    "tool_timeout": (lambda f: writer(late, f, timeout=0.01, is_async=True), {}),
    "verification_failed": (lambda f: writer(fine, f, verified_by(lambda _a, _r: False)), {}),
    "budget_exceeded": (lambda f: writer(fine, f), {"max_tool_calls": 0}),
    "loop_detected": (lambda f: again_and_again(writer(fine, f)), {"max_repeats": 1}),
    "circuit_open": (
        lambda f: again_after_a_failure(writer(down, f, circuit={"failures": 1})),
        {},
    ),
    "plan_violation": (lambda f: beside_the_plan(writer(fine, f)), {}),
    "permission_denied": (
        lambda f: writer(fine, f, scopes=("pay",)),
        {"principal": Principal(scopes=frozenset())},
    ),
    "forbidden_action": (
        lambda f: f(tool_contract(effect="forbidden", name="pay")(lambda ticket: ticket)),
        {},
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_keeps_a_call_from_being_made_ends_its_run(guard: Guard, reason: str) -> None:
    """Timeouts, doubts, verdicts, budgets, loops and policy lead to the declared ending."""
    make, options = REASONS[reason]
    pay = make(falls_back_to("draft"))
    with guard.run("w", run_id="r", **options):
        error = called(pay)
        after = called(writer(fine, name="other"), "T-9")
    assert isinstance(error, FellBack)
    assert (error.cause_kind, after.kind) == (reason, "run_halted")
    ending = guard.runs.show("r").ending
    assert ending is not None
    assert ending.arguments == {"ticket": "T-1"}


def test_what_was_refuted_is_undone_before_its_run_ends(
    guard: Guard, world: World, tmp_path: Path
) -> None:
    """A verifier's no first takes the effect back, then files the ticket."""

    def undo(result: str) -> None:
        world.happen(f"undo {result}")

    no = verified_by(lambda _arguments, _result: False)
    pay = writer(world.happen, no, compensated_by(undo), falls_back_to("ticket"))
    with guard.run("w", run_id="r"):
        error = called(pay)
    assert (error.details()["because"], len(filed(tmp_path))) == ("verification_failed", 1)
    assert world.effects == ["T-1", "undo done T-1"]
    assert guard.effects.list("in_doubt") == []


def test_a_read_that_times_out_ends_its_run_too(guard: Guard) -> None:
    """The ending of a tool that reads closes the write path as that of a write does."""

    @falls_back_to("draft")
    @tool_contract(effect="read", timeout=0.01)
    async def look(ticket: str) -> str:
        await asyncio.sleep(5)
        return ticket

    with guard.run("w", run_id="r"):
        error = called(look)
        after = called(writer(fine))
    assert isinstance(error, FellBack)
    assert (error.cause_kind, after.kind) == ("tool_timeout", "run_halted")


@pytest.mark.parametrize(
    "kind", ["approval_required", "idempotency_conflict", "contract_violation"]
)
def test_what_waits_or_can_be_mended_ends_nothing(guard: Guard, kind: str) -> None:
    """A call that waits for a person, takes a used key or is malformed leaves its run open."""
    rules = (requires_approval(),) if kind == "approval_required" else ()
    pay: Any = writer(fine, falls_back_to("draft"), *rules)
    if kind == "idempotency_conflict":
        tool: Any = lambda ticket, amount: f"{ticket} {amount}"  # noqa: E731 - guarded below
        tool = idempotent(key="pay:{ticket}")(tool_contract(effect="write", name="pay")(tool))
        pay = falls_back_to("draft")(tool)
    with guard.run("w", run_id="r"):
        if kind == "idempotency_conflict":
            pay("T-1", 1)
            error = called(lambda ticket: pay(ticket, 2))
        else:
            error = called((lambda _: pay(nothing=1)) if kind == "contract_violation" else pay)
        writer(fine, name="other")("T-9")
    assert error.kind == kind
    assert guard.runs.show("r").ending is None


def test_the_kinds_that_lead_to_an_ending_can_be_named(guard: Guard) -> None:
    """With `on=`, other kinds reach the caller as they are."""
    pay = writer(lost, falls_back_to("draft", on=("budget_exceeded",)))
    with guard.run("w", run_id="r"):
        assert called(pay).kind == "effect_in_doubt"
    assert guard.runs.show("r").ending is None


def test_tools_one_cannot_decorate_fall_back_too(guard: Guard) -> None:
    """`protect` takes what the decorator takes: a name, a callable, or a `Fallback`."""
    policy: dict[str, Any] = {"effect": "write", "key": "pay:{ticket}", "max_calls": 0}
    for number, to in enumerate(["draft", lambda _a, _e: "done", Fallback("ask")]):
        pay = guard.protect(fine, name=f"pay-{number}", falls_back_to=to, **policy)
        with guard.run("w", run_id=f"r-{number}"):
            assert called(pay).kind == "fell_back"
    assert guard.runs.show("r-2").status == "waiting"


YAML = """
agent_run:
  falls_back_to: draft
  tools:
    pay:
      effect: write
      idempotency: {key: "pay:{ticket}"}
      budget: {max_calls: 0}
      falls_back_to: ask
"""


def test_a_configuration_says_how_runs_end(tmp_path: Path) -> None:
    """`falls_back_to` of a tool in the file acts for that tool, that at the top for all others."""
    file = tmp_path / "agent_run.yaml"
    file.write_text(YAML)
    guard = Guard.from_config(file, store=f"sqlite:///{tmp_path}/own.db")
    pay = guard.protect(fine, name="pay")
    for run_id, tool in (("asks", pay), ("drafts", writer(lost, name="other"))):
        with guard.run("w", run_id=run_id):
            assert called(tool).details()["ending"] == run_id.rstrip("s")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_model_call_over_budget_ends_its_run(
    guard: Guard, tmp_path: Path, *, is_async: bool
) -> None:
    """A run that may ask its model no more files its ticket; a model call has no arguments to keep."""

    async def asks() -> None:
        async with guard.run("w", run_id="r", max_model_calls=0, falls_back_to="ticket") as run:
            if is_async:
                await run.amodel_started(model="m-1", messages="hello")
            run.model_started(model="m-1", messages="hello")

    with pytest.raises(FellBack) as error:
        asyncio.run(asks())
    (ticket,) = filed(tmp_path)
    assert error.value.details()["because"] == ticket["because"] == "budget_exceeded"
    assert (ticket["tool"], ticket["arguments"], ticket["step"]) == ("m-1", None, None)
    assert guard.runs.show("r").status == "halted"


def test_a_model_call_inside_a_tool_leaves_the_ending_to_the_tool(
    guard: Guard, tmp_path: Path
) -> None:
    """A tool that has declared an ending makes it when the model it asks is refused."""

    def asks(ticket: str) -> str:
        current_run().model_started(model="m-1", messages=ticket)
        return ticket

    pay = writer(asks, falls_back_to("draft"))
    with guard.run("w", run_id="r", max_model_calls=0, falls_back_to="ticket"):
        error = called(pay)
    assert (error.details()["ending"], filed(tmp_path)) == ("draft", [])


# What is refused where it is declared.


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        (lambda: falls_back_to("prayer"), "there are draft, ticket, ask"),
        (lambda: falls_back_to("draft", on=("bad_luck",)), "no kind of error 'bad_luck'"),
        (lambda: falls_back_to("draft", on="approval_required"), "waits or ends by itself"),
        (lambda: falls_back_to("draft", question="why?"), 'only "ask" has a question='),
    ],
)
def test_an_ending_that_cannot_be_is_refused_where_it_stands(
    declared: Callable[[], Any], sentence: str
) -> None:
    """A wrong declaration is refused with the sentence that mends it."""
    with pytest.raises(ConfigurationError, match=sentence):
        declared()


def test_a_ticket_needs_a_place_to_be_filed() -> None:
    """A guard without tickets refuses the tool when it is bound, and the run when it is made."""
    guard = Guard("memory://")
    pay = writer(fine, falls_back_to("ticket"))
    (problem,) = guard.check([pay])
    assert problem == (
        "pay falls back to a ticket, but this guard has nowhere to file one: say"
        " Guard(tickets=FileTickets('tickets.jsonl')), or another of agentguard.tickets"
    )
    with pytest.raises(ConfigurationError, match="the run falls back to a ticket"):
        guard.run("w", falls_back_to="ticket")


def test_a_sync_tool_has_a_sync_fallback(guard: Guard) -> None:
    """An async callable on a sync tool is refused when the tool is bound."""

    async def later(_arguments: Any, _error: Any) -> str:
        return "later"

    assert guard.check([writer(fine, falls_back_to(later))]) == [
        "pay is sync, so its fallback must be sync"
    ]


# After the ending.


def test_nothing_is_written_in_a_run_that_has_ended(guard: Guard, world: World) -> None:
    """Every later write is refused before it starts, and told why; reads go on."""
    pay, other = refused("draft"), writer(world.happen, name="other")
    look: Any = tool_contract(effect="read")(lambda ticket: f"seen {ticket}")
    with guard.run("w", run_id="r"):
        called(pay)
        error = called(other)
        assert look("T-1") == "seen T-1"
    assert isinstance(error, RunHalted)
    assert error.message.startswith("run r is closed by its fallback (draft r)")
    assert world.effects == []


@pytest.mark.parametrize("where", ["thread", "task", "other guard", "resumed"])
def test_the_write_path_is_closed_wherever_the_run_goes_on(
    guard: Guard, world: World, tmp_path: Path, where: str
) -> None:
    """Threads, tasks, other guards on the store and a resumed run find the path closed."""
    pay, other = refused("draft"), writer(world.happen, name="other")
    with guard.run("w", run_id="r") as run:
        error = called(pay)
        if where == "thread":
            with ThreadPoolExecutor() as pool:
                error = pool.submit(contextvars.copy_context().run, called, other).result()
        elif where == "task":
            error = called(writer(world.happen, name="soon", is_async=True))
        elif where == "other guard":
            second = Guard(f"sqlite:///{tmp_path}/store.db")
            with second.run("w", run_id=run.id):
                error = called(other)
    if where == "resumed":
        with guard.run("w", run_id="r"):
            error = called(other)
    assert (error.kind, world.effects) == ("run_halted", [])


def test_another_process_finds_the_path_closed(guard: Guard, world: World, tmp_path: Path) -> None:
    """A process that enters the run under its id writes nothing in it."""
    with guard.run("w", run_id="r"):
        called(refused("draft"))
    guard.close()
    child = os.fork()
    if child == 0:
        own = Guard(f"sqlite:///{tmp_path}/store.db")
        with own.run("w", run_id="r"):
            error = called(writer(world.happen, name="other"))
        os._exit(7 if error.kind == "run_halted" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert world.effects == []


def test_a_run_that_has_ended_is_halted(guard: Guard) -> None:
    """Its status is halted, whether the agent lets the error pass or goes on and leaves in order."""
    for run_id in ("passed", "swallowed"):
        pay = writer(lost, falls_back_to("draft"), name=f"pay_{run_id}")
        try:
            with guard.run("w", run_id=run_id):
                if run_id == "passed":
                    pay("T-1")
                called(pay)
        except FellBack:
            assert run_id == "passed"
        run = guard.runs.show(run_id)
        assert (run.status, "closed by its fallback" in (run.error or "")) == ("halted", True)


def test_the_model_is_not_called_in_a_run_that_has_ended(guard: Guard) -> None:
    """No tokens are spent on a run that can write nothing any more."""
    with guard.run("w", run_id="r") as run:
        called(writer(lost, falls_back_to("draft")))
        with pytest.raises(RunHalted):
            run.model_started(model="m", messages="go on")


def test_what_was_done_before_is_still_told(guard: Guard) -> None:
    """A call that has succeeded earlier is answered from the record, also after the ending."""
    paid = writer(fine, name="paid")
    with guard.run("w", run_id="r"):
        assert paid("T-1") == "paid T-1"
        called(writer(lost, falls_back_to("draft")))
        assert paid("T-1") == "paid T-1"


def test_a_write_that_had_started_before_ends_normally(guard: Guard, world: World) -> None:
    """What is under way when the path is closed is done and recorded as done."""
    began, closed = threading.Event(), threading.Event()

    def slow(ticket: str) -> str:
        began.set()
        assert closed.wait(10)
        return world.happen(ticket)

    slow_tool, pay = writer(slow, name="slow"), writer(lost, falls_back_to("draft"))
    with guard.run("w", run_id="r"), ThreadPoolExecutor() as pool:
        slowly = pool.submit(contextvars.copy_context().run, slow_tool, "T-1")
        assert began.wait(10)
        called(pay, "T-2")
        closed.set()
        assert slowly.result() == "done T-1"
    (effect,) = [e for e in guard.effects.list() if e.tool == "slow"]
    assert effect.state is EffectState.SUCCEEDED


def test_a_retry_after_the_ending_is_refused(guard: Guard, world: World) -> None:
    """A call whose first try had no effect is not tried again once the path is closed."""
    pay = writer(lost, falls_back_to("draft"))

    def fails(_ticket: str) -> str:
        called(pay, "T-2")
        raise NoEffect("busy")

    with guard.run("w", run_id="r"):
        error = called(writer(fails, name="again", retry=Retry(attempts=3, wait=0)))
    assert (error.kind, world.effects) == ("run_halted", [])


def test_a_rollback_by_a_person_is_no_write_of_the_run(guard: Guard, world: World) -> None:
    """What a run wrote before it ended can be undone by a person afterwards."""

    def undo(result: str) -> None:
        world.happen(f"undo {result}")

    done = writer(world.happen, compensated_by(undo, when="rollback_only"), name="done")
    ended = writer(fine, falls_back_to("draft"), budget(max_calls=0))
    with guard.run("w", run_id="r"):
        done("T-1")
        called(ended, "T-2")
    guard.rollback("r", tools=[done], by="dana", reason="start over")
    assert world.effects == ["T-1", "undo done T-1"]


# The answer.


def ask_first(guard: Guard) -> Callable[[str], Any]:
    """Let a run ask whether to go over its budget; return the tool that asked."""
    fallback = falls_back_to("ask", question="More?", on=("budget_exceeded",))
    pay = writer(lambda ticket: f"{ticket}: {current_run().answer}", fallback)
    with guard.run("w", run_id="r", max_tool_calls=0):
        called(pay)
    return pay


def test_an_answer_opens_the_write_path_again(guard: Guard) -> None:
    """After the answer the next call is made, and reads the answer from its run."""
    pay = ask_first(guard)
    ending = guard.runs.answer("r", "yes, two", by="dana")
    assert (ending.answered_by, ending.answer) == ("dana", "yes, two")
    with guard.run("w", run_id="r", max_tool_calls=2) as run:
        assert run.answer == "yes, two"
        assert pay("T-1") == "T-1: yes, two"
    assert guard.runs.show("r").status == "succeeded"
    (event,) = [e for e in guard.runs.events("r") if e.kind == "answered"]
    assert (event.actor, event.content) == ("person:dana", {"answer": "yes, two"})


def test_without_an_answer_nothing_is_written(guard: Guard) -> None:
    """A run that is resumed before its answer is refused, told how to answer, and still waits."""
    pay = ask_first(guard)
    with guard.run("w", run_id="r", max_tool_calls=2) as run:
        error = called(pay)
        assert run.answer is None
    assert "agentguard runs answer r TEXT --by NAME" in error.message
    assert guard.runs.show("r").status == "waiting"


def test_a_run_asks_once(guard: Guard) -> None:
    """The second time a run would ask, it writes a draft, tells why, and is halted."""
    pay = ask_first(guard)
    guard.runs.answer("r", "yes", by="dana")
    with guard.run("w", run_id="r", max_tool_calls=0):
        error = called(pay)
    run = guard.runs.show("r")
    assert isinstance(error, FellBack)
    assert (error.ending, run.status) == ("draft", "halted")
    assert run.ending is not None
    assert run.ending.why == "a question was asked in this run already"


def test_a_run_that_was_answered_may_still_file_a_ticket(guard: Guard, tmp_path: Path) -> None:
    """After its question a run can end once more, in a ticket under a key of its own."""
    ask_first(guard)
    guard.runs.answer("r", "yes", by="dana")
    with guard.run("w", run_id="r", max_tool_calls=9):
        called(writer(lost, falls_back_to("ticket"), name="other"))
    (ticket,) = filed(tmp_path)
    assert ticket["key"].startswith("fallback/r/2/")


@pytest.mark.parametrize(
    ("text", "by", "sentence"),
    [
        ("yes", " ", "needs the name of a person"),
        ("yes", "agent", "not of the agent"),
        ("yes", "system:x", "needs the name of a person"),
        (" ", "dana", "a text of 1 to 10000"),
        ("y" * 10_001, "dana", "a text of 1 to 10000"),
    ],
)
def test_an_answer_comes_from_a_person_and_says_something(
    guard: Guard, text: str, by: str, sentence: str
) -> None:
    """The agent cannot answer itself, and an empty answer opens nothing."""
    ask_first(guard)
    with pytest.raises(DecisionRefused, match=sentence):
        guard.runs.answer("r", text, by=by)
    with guard.run("w", run_id="r", max_tool_calls=2):
        assert called(writer(fine, name="other")).kind == "run_halted"


def test_a_question_is_answered_once(guard: Guard) -> None:
    """A second answer is refused and names who has answered; a run that asked nothing has none."""
    ask_first(guard)
    guard.runs.answer("r", "yes", by="dana")
    with pytest.raises(DecisionRefused, match="answered by dana already"):
        guard.runs.answer("r", "no", by="lee")
    with guard.run("w", run_id="r-2"):
        pass
    with pytest.raises(DecisionRefused, match="has asked nothing"):
        guard.runs.answer("r-2", "yes", by="dana")


def test_a_cancelled_run_takes_no_answer(guard: Guard) -> None:
    """Cancelled for good is cancelled for good."""
    ask_first(guard)
    guard.runs.cancel("r", by="dana", reason="no")
    with pytest.raises(RunHalted, match="is cancelled"):
        guard.runs.answer("r", "yes", by="dana")


def test_a_draft_takes_no_answer(guard: Guard) -> None:
    """Only a question can be answered; a draft stays closed."""
    with guard.run("w", run_id="r"):
        called(writer(lost, falls_back_to("draft")))
    with pytest.raises(DecisionRefused, match="has asked nothing"):
        guard.runs.answer("r", "go on", by="dana")


# Which declaration acts.


def test_a_run_has_a_fallback_for_tools_that_declare_none(guard: Guard) -> None:
    """`guard.run(falls_back_to=…)` acts for every tool without one of its own."""
    with guard.run("w", run_id="r", falls_back_to="draft"):
        error = called(writer(lost))
    assert error.kind == "fell_back"


def test_a_run_may_say_all_of_a_fallback(guard: Guard) -> None:
    """A `Fallback` names kinds and question for a run as the decorator does for a tool."""
    fallback = Fallback("ask", frozenset({"budget_exceeded"}), "More?")
    nobody = Principal(scopes=frozenset())
    with guard.run("w", run_id="r", max_tool_calls=0, principal=nobody, falls_back_to=fallback):
        assert called(writer(fine, scopes=("pay",))).kind == "permission_denied"
        assert called(writer(fine, name="other"), "T-2").kind == "fell_back"
    assert guard.runs.show("r").status == "waiting"


def test_the_tool_s_own_fallback_comes_first(guard: Guard, tmp_path: Path) -> None:
    """A tool's declaration acts instead of that of its run."""
    with guard.run("w", run_id="r", falls_back_to="ticket"):
        error = called(writer(lost, falls_back_to("draft")))
    assert isinstance(error, FellBack)
    assert (error.ending, filed(tmp_path)) == ("draft", [])


def test_the_innermost_declaration_acts_once(guard: Guard, tmp_path: Path) -> None:
    """A tool inside a tool ends the run; the outer one's fallback makes no second ending."""
    inner = writer(lost, falls_back_to("draft"), name="inner")
    outer = writer(inner, falls_back_to("ticket"), name="outer")
    with guard.run("w", run_id="r", falls_back_to="ask"):
        error = called(outer)
    assert isinstance(error, FellBack)
    assert (error.ending, len(told(guard)), filed(tmp_path)) == ("draft", 1, [])


def test_an_outer_call_s_fallback_waits_until_the_outer_call_has_failed(
    guard: Guard, world: World
) -> None:
    """A body that copes with the failure of a call inside it needs no ending."""
    inner = tool_contract(effect="read", name="inner")(lost)

    def copes(ticket: str) -> str:
        with pytest.raises(ConnectionResetError):
            inner(ticket)
        return world.happen(ticket)

    outer = writer(copes, falls_back_to("draft"), name="outer")
    with guard.run("w", run_id="r", falls_back_to="draft"):
        assert outer("T-1") == "done T-1"
    assert guard.runs.show("r").ending is None


def test_an_ending_of_a_run_inside_is_not_made_again_outside(guard: Guard, tmp_path: Path) -> None:
    """A run inside a tool ends by itself; the run around it is told and makes no ending of its own."""
    inner = writer(lost, falls_back_to("draft"), name="inner")

    def nested(ticket: str) -> str:
        with guard.run("w", run_id="inside"):
            return str(inner(ticket))

    outer = writer(nested, falls_back_to("ticket"), name="outer")
    with guard.run("w", run_id="r"):
        error = called(outer)
    assert (error.kind, type(error.__cause__)) == ("effect_in_doubt", FellBack)
    assert (guard.runs.show("r").ending, filed(tmp_path)) == (None, [])
    assert guard.runs.show("inside").status == "halted"


# Races.


@pytest.mark.parametrize("kind", ["draft", "ticket", "own"])
def test_two_calls_that_fail_at_once_make_one_ending(
    guard: Guard, tmp_path: Path, kind: str
) -> None:
    """However many calls of a run fail at the same moment, there is one ending, told to all."""
    both, made = threading.Barrier(4), list[Any]()

    def fails(_ticket: str) -> str:
        both.wait(10)
        raise ConnectionResetError

    def own(arguments: Any, _error: GuardError) -> str:
        made.append(arguments)
        return "done"

    pay = writer(fails, falls_back_to(own if kind == "own" else kind))
    with guard.run("w", run_id="r"), ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(contextvars.copy_context().run, called, pay, f"T-{n}") for n in range(4)
        ]
        errors = [call.result() for call in calls]
    assert {error.kind for error in errors} == {"fell_back"}
    assert len({str(e.details()["reference"]) for e in errors}) == 1
    assert (len(told(guard)), len(filed(tmp_path))) == (1, kind == "ticket")
    assert len(made) == (kind == "own")


def test_two_tasks_that_fail_at_once_file_one_ticket(guard: Guard, tmp_path: Path) -> None:
    """Async calls of one run make one ending, too."""
    pay: Any = writer(lost, falls_back_to("ticket"), is_async=True)

    async def both() -> list[Any]:
        async with guard.run("w", run_id="r"):
            return await asyncio.gather(*(pay(f"T-{n}") for n in range(4)), return_exceptions=True)

    assert {type(error) for error in asyncio.run(both())} == {FellBack}
    assert (len(told(guard)), len(filed(tmp_path))) == (1, 1)


# Backends of tickets.


class Backend:
    """A backend that fails as it is told to, and keeps what it was given."""

    def __init__(self, *failures: BaseException, idempotent: bool = False) -> None:
        self.failures, self.tickets = list(failures), list[Ticket]()
        self.idempotent = idempotent

    def file(self, ticket: Ticket) -> str:
        """Keep the ticket, then fail."""
        self.tickets.append(ticket)
        if self.failures:
            raise self.failures.pop(0)
        return "B-1"


def ended_with(tmp_path: Path, port: Any, tool: Any = None) -> tuple[FellBack, Guard]:
    """End a run with a ticket at *port*."""
    guard = Guard(f"sqlite:///{tmp_path}/own.db", tickets=port)
    with guard.run("w", run_id="r"):
        error = called(tool or writer(lost, falls_back_to("ticket")))
    assert isinstance(error, FellBack)
    return error, guard


@pytest.mark.parametrize("down", [NoEffect("closed"), ConnectionRefusedError("no")], ids=str)
def test_a_backend_that_is_down_leaves_a_draft(tmp_path: Path, down: BaseException) -> None:
    """Where nothing was filed, the call is written down, and the record says why."""
    error, guard = ended_with(tmp_path, Backend(down))
    run = guard.runs.show("r")
    assert (error.ending, run.status) == ("draft", "halted")
    assert run.ending is not None
    assert run.ending.why == f"{type(down).__name__}: {down}"
    assert guard.effects.show("fallback/r/1").state is EffectState.FAILED_FINAL
    assert [event["instead_of"] for event in told(guard)] == ["ticket"]


def test_a_ticket_nobody_knows_of_is_in_doubt_and_not_filed_again(tmp_path: Path) -> None:
    """Where the answer is lost, the ticket is sent once, listed as a doubt, and a draft is written."""
    port = Backend(ConnectionResetError("no answer"))
    error, guard = ended_with(tmp_path, port)
    assert (error.ending, len(port.tickets)) == ("draft", 1)
    assert [e.id for e in guard.effects.list("in_doubt") if e.tool == "pay.ticket"] == [
        "fallback/r/1"
    ]


def test_a_lost_answer_is_asked_for_again_where_repeats_are_dropped(tmp_path: Path) -> None:
    """A backend that drops repeats of a key gets the same ticket again, under the same key."""
    port = Backend(ConnectionResetError("no answer"), idempotent=True)
    error, guard = ended_with(tmp_path, port)
    assert (error.ending, error.reference) == ("ticket", "B-1")
    assert len(port.tickets) == 2
    assert port.tickets[0] == port.tickets[1]
    assert guard.effects.show("fallback/r/1").state is EffectState.SUCCEEDED


def test_a_backend_that_stays_silent_is_asked_three_times(tmp_path: Path) -> None:
    """No loop: after three tries the ticket is in doubt and the run ends in a draft."""
    port = Backend(*(ConnectionResetError("no answer") for _ in range(9)), idempotent=True)
    error, _ = ended_with(tmp_path, port)
    assert (error.ending, len(port.tickets)) == ("draft", 3)


def test_a_backend_that_can_be_asked_is_asked(tmp_path: Path) -> None:
    """With `find`, a lost answer is looked up instead of being sent again."""

    class Asked(Backend):
        def find(self, key: str) -> str | None:
            return "B-7" if any(t.key == key for t in self.tickets) else None

    error, guard = ended_with(tmp_path, Asked(ConnectionResetError("no answer")))
    assert (error.ending, error.reference) == ("ticket", "B-7")
    assert guard.effects.list("in_doubt")[0].tool == "pay"


def test_an_agent_that_is_stopped_files_no_ticket(guard: Guard, tmp_path: Path) -> None:
    """A kill switch thrown while the call fails holds for its ticket; the draft says so."""

    def fails(_ticket: str) -> str:
        guard.kill(all=True, by="dana", reason="stop")
        raise ConnectionResetError

    with guard.run("w", run_id="r"):
        error = called(writer(fails, falls_back_to("ticket")))
    ending = guard.runs.show("r").ending
    assert isinstance(error, FellBack)
    assert ending is not None
    assert (error.ending, filed(tmp_path)) == ("draft", [])
    assert "kill switch" in ending.why


def test_a_ruling_on_a_ticket_gives_back_no_call(tmp_path: Path) -> None:
    """A person who rules that a ticket was never filed leaves the run's count of calls as it is."""
    _, guard = ended_with(tmp_path, Backend(ConnectionResetError("no answer")))
    before = guard.runs.show("r").tool_calls
    guard.effects.resolve("fallback/r/1", "not_happened", by="dana", reason="looked")
    assert guard.runs.show("r").tool_calls == before


def test_runs_of_one_name_in_two_tenants_have_two_tickets(guard: Guard, tmp_path: Path) -> None:
    """A backend that several tenants share does not take one's ticket for another's."""
    for tenant in ("acme", "evil"):
        with guard.run("w", run_id="r", principal=Principal(tenant=tenant)):
            called(refused("ticket"))
    assert [ticket["tenant"] for ticket in filed(tmp_path)] == ["acme", "evil"]


class Interrupted(Backend):
    """A backend during whose first answer somebody presses Ctrl-C."""

    def file(self, ticket: Ticket) -> str:
        """Take the ticket."""
        number = super().file(ticket)
        if len(self.tickets) == 1:
            raise KeyboardInterrupt
        return number


@pytest.mark.parametrize(
    ("ruling", "ending", "reference", "sent"),
    [
        ("happened", "ticket", "B-9", 1),
        ("not_happened", "ticket", "B-1", 2),
        ("failed", "draft", "r/1", 1),
        ("", "draft", "r/1", 1),
    ],
)
def test_a_ruling_on_a_ticket_counts_when_its_run_ends(
    tmp_path: Path, ruling: str, ending: str, reference: str, sent: int
) -> None:
    """A ticket that was interrupted is in doubt; the next call ends the run as a person has ruled."""
    port = Interrupted()
    guard = Guard(f"sqlite:///{tmp_path}/own.db", tickets=port)
    pay = writer(lost, falls_back_to("ticket"))
    with pytest.raises(KeyboardInterrupt), guard.run("w", run_id="r"):
        pay("T-1")
    assert guard.effects.show("fallback/r/1").doubt_reason == "cancelled"
    if ruling:
        guard.effects.resolve("fallback/r/1", ruling, by="dana", reason="looked", result="B-9")
    with guard.run("w", run_id="r"):
        error = called(pay)
    assert isinstance(error, FellBack)
    assert (error.ending, error.reference, len(port.tickets)) == (ending, reference, sent)


def test_a_task_that_is_cancelled_over_its_ticket_leaves_a_doubt(tmp_path: Path) -> None:
    """A cancelled task ends at once, its ticket is in doubt, and the next call files it once more."""
    began, over = threading.Event(), threading.Event()

    class Slow(Backend):
        def file(self, ticket: Ticket) -> str:
            began.set()
            over.wait(10)
            return super().file(ticket)

    port = Slow(idempotent=True)
    guard = Guard(f"sqlite:///{tmp_path}/own.db", tickets=port)
    pay: Any = writer(lost, falls_back_to("ticket"), is_async=True)

    async def cancelled() -> EffectState:
        async with guard.run("w", run_id="r"):
            task = asyncio.create_task(pay("T-1"))
            await asyncio.to_thread(began.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            state = guard.effects.show("fallback/r/1").state
            over.set()
            with pytest.raises(FellBack):
                await pay("T-1")
        return state

    assert asyncio.run(cancelled()) is EffectState.IN_DOUBT
    assert len({ticket.key for ticket in port.tickets}) == 1
    assert guard.effects.show("fallback/r/1").state is EffectState.SUCCEEDED


# Other ways of running.


def test_two_processes_that_fail_at_once_file_one_ticket(guard: Guard, tmp_path: Path) -> None:
    """Workers of one run in processes of their own make one ending."""
    guard.close()
    url, path = f"sqlite:///{tmp_path}/store.db", tmp_path / "tickets"

    def work(number: int) -> None:
        own = Guard(url, tickets=FileTickets(path))
        with own.run("w", run_id="r", join=True):
            error = called(writer(lost, falls_back_to("ticket")), f"T-{number}")
        os._exit(0 if error.kind in ("fell_back", "run_halted") else 1)

    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            work(number)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert (len(told(Guard(url))), len(filed(tmp_path))) == (1, 1)


def test_a_tool_in_the_store_s_own_database_falls_back(guard: Guard) -> None:
    """What its transaction had done is undone, and the ending is written in one of its own."""

    @falls_back_to("draft")
    @idempotent(key="note:{ticket}", same_database=True)
    @tool_contract(effect="write", scopes=("notes",))
    def note(ticket: str) -> str:
        return ticket

    inner: Any = tool_contract(effect="read", scopes=("look",), name="inner")(fine)
    inner = falls_back_to("ticket")(inner)

    @falls_back_to("draft")
    @idempotent(key="nested:{ticket}", same_database=True)
    @tool_contract(effect="write")
    def nested(ticket: str) -> str:
        return str(inner(ticket))

    nobody = Principal(scopes=frozenset())
    for number, tool in enumerate((note, nested)):
        with guard.run("w", run_id=f"r-{number}", principal=nobody):
            error = called(tool)
        assert isinstance(error, FellBack)
        assert (error.ending, error.cause_kind) == ("draft", "permission_denied")


def test_a_server_makes_one_ending_of_many_failures(postgres_url: str, tmp_path: Path) -> None:
    """On PostgreSQL four calls that fail at once end their run once, and an answer opens another."""
    guard = Guard(postgres_url, tickets=FileTickets(tmp_path / "tickets"))
    both = threading.Barrier(4)

    def fails(_ticket: str) -> str:
        both.wait(10)
        raise ConnectionResetError

    pay = writer(fails, falls_back_to("ticket"))
    with guard.run("w", run_id="r"), ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(contextvars.copy_context().run, called, pay, f"T-{n}") for n in range(4)
        ]
        assert {call.result().kind for call in calls} == {"fell_back"}
    assert (len(told(guard)), len(filed(tmp_path))) == (1, 1)
    with guard.run("w", run_id="r-2"):
        called(refused("ask"))
    assert guard.runs.answer("r-2", "yes", by="dana").answer == "yes"
    with guard.run("w", run_id="r-2") as run:
        assert (run.answer, writer(fine, name="other")("T-1")) == ("yes", "paid T-1")
    assert guard.runs.verify("r-2") is None
    guard.close()


# Tickets in a file.


def a_ticket(key: str = "fallback/r/1") -> Ticket:
    """Make a ticket."""
    return Ticket(key, "r", "default", "w", "pay", {"ticket": 'T-"1"'}, "tool_timeout", "late")


def test_a_file_has_one_line_for_a_key(tmp_path: Path) -> None:
    """Filed again, from here or by another object, a ticket has the reference it had."""
    path = tmp_path / "tickets"
    first = FileTickets(path).file(a_ticket())
    assert FileTickets(path).file(a_ticket()) == FileTickets(path).find("fallback/r/1") == first
    assert FileTickets(path).file(a_ticket('with "quotes"')) != first
    assert FileTickets(path).file(a_ticket('with "quotes"')) != first
    assert len(filed(tmp_path)) == 2


def test_a_torn_line_swallows_no_ticket(tmp_path: Path) -> None:
    """What a cut-off writer left behind stays a line of its own."""
    path = tmp_path / "tickets"
    path.write_text('{"key": "fallback/r/1", "refer')
    reference = FileTickets(path).file(a_ticket())
    assert path.read_text().splitlines()[0] == '{"key": "fallback/r/1", "refer'
    assert FileTickets(path).find("fallback/r/1") == reference


def test_many_who_file_one_ticket_write_one_line(tmp_path: Path) -> None:
    """The file's lock keeps threads and processes apart."""
    tickets = FileTickets(tmp_path / "tickets")
    with ThreadPoolExecutor(8) as pool:
        references = set(pool.map(lambda _: tickets.file(a_ticket()), range(32)))
    assert (len(references), len(filed(tmp_path))) == (1, 1)


def test_a_file_that_cannot_be_opened_has_no_ticket(tmp_path: Path) -> None:
    """A missing folder is a failure that is known to have had no effect."""
    with pytest.raises(NoEffect, match="cannot be opened"):
        FileTickets(tmp_path / "no" / "tickets").file(a_ticket())


# Tickets at a webhook.


class Webhook(ThreadingHTTPServer):
    """A real server that keeps what is posted to it.

    Attributes:
        tickets: by idempotency key, if it *honours* keys; otherwise by number.
        lose: so many replies are lost after the ticket was taken.
        status: what it answers.
    """

    daemon_threads = True

    def __init__(self, *, honours: bool = True, lose: int = 0, status: int = 201) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.honours, self.lose, self.status = honours, lose, status
        self.tickets: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self.server_address[1]}/tickets"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Lost replies are no news."""


class _Post(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body, server = self.rfile.read(int(self.headers["Content-Length"])), self.server
        assert isinstance(server, Webhook)
        server.requests.append((dict(self.headers), body))
        if server.status >= 300:
            self.send_response(server.status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            return
        known = self.headers["Idempotency-Key"] if server.honours else ""
        name = known or str(len(server.tickets))
        server.tickets.setdefault(name, json.loads(body))
        if server.lose:
            server.lose -= 1
            self.connection.close()
            return
        self.send_response(server.status)
        self.end_headers()
        number = list(server.tickets).index(name) + 1
        self.wfile.write(json.dumps({"id": number, "number": f"WEB-{number}"}).encode())

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Be quiet."""


@pytest.fixture(name="webhook")
def a_webhook() -> Iterator[Callable[..., Webhook]]:
    """Start servers as they are asked for, and stop them."""
    servers: list[Webhook] = []

    def start(**options: Any) -> Webhook:
        server = Webhook(**options)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_webhook_gets_a_signed_ticket_with_its_key(
    tmp_path: Path, webhook: Callable[..., Webhook]
) -> None:
    """The request carries the key, JSON and an HMAC of its body; the reply's number is the reference."""
    server = webhook()
    error, _ = ended_with(tmp_path, WebhookTickets(server.url, secret="s3cret"))
    ((headers, body),) = server.requests
    assert (error.ending, error.reference) == ("ticket", "WEB-1")
    assert headers["Idempotency-Key"] == json.loads(body)["key"]
    assert headers["Idempotency-Key"].startswith("fallback/r/1/")
    signed = hmac.new(b"s3cret", body, "sha256").hexdigest()
    assert headers["X-Agentguard-Signature"] == f"sha256={signed}"
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_lost_reply_makes_one_ticket_where_keys_are_honoured(
    tmp_path: Path, webhook: Callable[..., Webhook], *, is_async: bool
) -> None:
    """The request is repeated under its key, and the server has one ticket."""
    server = webhook(lose=1)
    tool = writer(lost, falls_back_to("ticket"), is_async=is_async)
    error, _ = ended_with(tmp_path, WebhookTickets(server.url, idempotent=True), tool)
    assert (error.ending, error.reference) == ("ticket", "WEB-1")
    assert (len(server.tickets), len(server.requests)) == (1, 2)
    assert server.requests[0][1] == server.requests[1][1]


def test_a_lost_reply_is_a_doubt_where_keys_are_not_honoured(
    tmp_path: Path, webhook: Callable[..., Webhook]
) -> None:
    """The request is not repeated; the ticket is in doubt and the run has a draft."""
    server = webhook(honours=False, lose=9)
    error, guard = ended_with(tmp_path, WebhookTickets(server.url))
    assert (error.ending, len(server.tickets)) == ("draft", 1)
    assert guard.effects.show("fallback/r/1").doubt_reason == "no_answer"


@pytest.mark.parametrize(("status", "state"), [(404, "failed_final"), (500, "in_doubt")])
def test_a_webhook_that_refuses_leaves_a_draft(
    tmp_path: Path, webhook: Callable[..., Webhook], status: int, state: str
) -> None:
    """A refusal is known to have filed nothing; a server's error is not."""
    error, guard = ended_with(tmp_path, WebhookTickets(webhook(status=status).url))
    assert (error.ending, guard.effects.show("fallback/r/1").state) == ("draft", state)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_ticket_follows_no_redirect(
    tmp_path: Path, webhook: Callable[..., Webhook], status: int
) -> None:
    """What would send a ticket elsewhere is a failure without effect, and told."""
    server = webhook(status=status)
    error, guard = ended_with(tmp_path, WebhookTickets(server.url))
    ending = guard.runs.show("r").ending
    assert ending is not None
    assert (error.ending, len(server.requests)) == ("draft", 1)
    assert "elsewhere" in ending.why


def test_nobody_listens_is_a_draft(tmp_path: Path) -> None:
    """A refused connection has filed nothing."""
    error, guard = ended_with(tmp_path, WebhookTickets("http://127.0.0.1:1/tickets"))
    assert error.ending == "draft"
    assert guard.effects.show("fallback/r/1").state is EffectState.FAILED_FINAL


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "tickets", "https:///x"])
def test_only_web_addresses_are_webhooks(url: str) -> None:
    """Whatever is no http or https address is refused where it is given."""
    with pytest.raises(ConfigurationError, match="is no address of a webhook"):
        WebhookTickets(url)


def test_no_password_stands_in_an_address() -> None:
    """User and password belong into headers, and the refusal does not repeat them."""
    with pytest.raises(ConfigurationError) as refused:
        WebhookTickets("https://u:hunter2@host/x")
    assert "hunter2" not in str(refused.value)
