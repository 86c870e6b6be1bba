"""Loops: what repeats itself without progress is stopped, what only looks so is not."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentguard import Guard, GuardError, LoopDetected, NoEffect, Retry, idempotent, tool_contract
from agentguard import config as configuration
from agentguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

CORPUS = Path(__file__).parent / "loop_corpus"
ANYTHING = {"type": "object", "additionalProperties": True}


def traces(kind: str) -> list[Any]:
    """The traces of one kind, each under its name."""
    return [pytest.param(path, id=path.stem) for path in sorted((CORPUS / kind).glob("*.json"))]


class Trace:
    """A trace of the corpus and guarded tools that do in each call what it says."""

    def __init__(self, path: Path, guard: Guard) -> None:
        told = json.loads(path.read_text(encoding="utf-8"))
        self.calls, self.guard = told["calls"], guard
        self.pattern, self.stopped_at = told.get("pattern"), told.get("stopped_at")
        self.bodies: dict[int, int] = defaultdict(int)
        self._now = 0
        self._tools = {name: self._tool(name, **policy) for name, policy in told["tools"].items()}

    def _tool(
        self, name: str, *, retry: int = 1, schema: Any = None, **policy: Any
    ) -> Callable[..., Any]:
        def body(**_arguments: Any) -> Any:
            self.bodies[self._now] += 1
            call = self.calls[self._now]
            if "fails" in call or self.bodies[self._now] <= call.get("fails_first", 0):
                raise NoEffect(call.get("fails", "not yet"))
            return call["result"]

        properties: dict[str, Any] = {key: {} for call in self.calls for key in call["arguments"]}
        return self.guard.protect(
            body, name=name, input_schema=schema or {**ANYTHING, "properties": properties},
            retry=Retry(attempts=retry, wait=0.0), **policy,
        )  # fmt: skip

    def play(self, run: Any, *, ids: bool = True) -> None:
        """Make the calls in order, as a model would: an error of a tool is taken note of."""
        for number, call in enumerate(self.calls):
            self._now = number
            try:
                if ids:
                    with run.tool_call(f"call-{number}"):
                        self._tools[call["tool"]](**call["arguments"])
                else:
                    self._tools[call["tool"]](**call["arguments"])
            except LoopDetected:
                raise
            except (NoEffect, GuardError):
                assert "fails" in call, call

    @property
    def now(self) -> int:
        """The number of the call that came last, from 1."""
        return self._now + 1


@pytest.mark.parametrize("path", traces("loops"))
@pytest.mark.parametrize("ids", [True, False], ids=["ids", "none"])
def test_a_loop_of_the_corpus_is_stopped(path: Path, guard: Guard, *, ids: bool) -> None:
    """A loop is stopped where its fourth round would begin, with its pattern, and not before."""
    trace = Trace(path, guard)
    with guard.run("w") as run, pytest.raises(LoopDetected) as stopped:
        trace.play(run, ids=ids)
    assert (trace.now, stopped.value.pattern) == (trace.stopped_at, trace.pattern)
    assert trace.bodies[trace.now - 1] == 0


@pytest.mark.parametrize("path", traces("legitimate"))
@pytest.mark.parametrize("ids", [True, False], ids=["ids", "none"])
def test_a_legitimate_repeat_of_the_corpus_is_not_stopped(
    path: Path, guard: Guard, *, ids: bool
) -> None:
    """What goes on, or is declared to repeat itself, is not taken for a loop."""
    trace = Trace(path, guard)
    with guard.run("w") as run:
        trace.play(run, ids=ids)
    assert trace.now == len(trace.calls)


def test_the_corpus_is_large_enough() -> None:
    """There are at least thirty traces of each kind."""
    assert min(len(traces("loops")), len(traces("legitimate"))) >= 30


# What is told of a loop.


@tool_contract(effect="read")
def look(name: str) -> str:
    """The same for everybody, always."""
    return "nothing"


@tool_contract(effect="read")
def peek(name: str) -> str:
    """The same for everybody, always."""
    return "nothing"


def detected(function: Callable[[], object]) -> LoopDetected:
    """Return the refusal."""
    with pytest.raises(LoopDetected) as raised:
        function()
    return raised.value


def test_the_refusal_names_the_pattern_and_the_steps(guard: Guard) -> None:
    """Whoever reads the error knows what repeated itself, and where that stands in the record."""
    with guard.run("w"):
        peek("bob")
        for name in ("Ada", "ada", "ADA"):
            look(name)
        error = detected(lambda: look(" ada"))
    assert error.message == (
        "look came 4 times for the same and no progress between (cosmetic changes, steps 2, 3, 4)"
    )
    told = json.loads(error.for_model())
    assert (told["pattern"], told["steps"], told["limit"]) == ("cosmetic changes", [2, 3, 4], "3")


def test_turns_are_told_with_their_tools(guard: Guard) -> None:
    """Of an alternation the error names every tool that takes part."""
    with guard.run("w"):
        for _ in range(3):
            look("ada")
            peek("ada")
        error = detected(lambda: look("ada"))
    assert error.message == (
        "calls of look and peek took turns 3 times and no progress between"
        " (alternation, steps 1, 2, 3, 4, 5, 6)"
    )


def test_a_loop_is_in_the_record(guard: Guard) -> None:
    """The refused call takes a step, and an event tells the pattern."""
    with guard.run("w") as run:
        for _ in range(3):
            look("ada")
        detected(lambda: look("ada"))
    events = guard.runs.events(run.id)
    found = {event.kind: dict(event.data) for event in events}
    assert found["loop.detected"] == {
        "tool": "look", "pattern": "same call", "steps": [1, 2, 3], "limit": 3,
    }  # fmt: skip
    assert (found["step.decided"]["decision"], found["step.decided"]["error"]) == (
        "deny", "loop_detected",
    )  # fmt: skip


def test_a_stopped_loop_stays_stopped_and_other_calls_go_on(guard: Guard) -> None:
    """Only what repeats itself is refused; a new call ends the loop."""
    with guard.run("w"):
        for _ in range(3):
            look("ada")
        detected(lambda: look("ada"))
        detected(lambda: look("ada"))
        peek("ada")
        look("ada")


def test_secrets_are_not_told(guard: Guard) -> None:
    """The refusal of a repeated secret does not show it."""

    @tool_contract(effect="read", sensitive=["token"])
    def whoami(token: str) -> str:
        return "nobody"

    with guard.run("w") as run:
        for _ in range(3):
            whoami("hunter2")
        error = detected(lambda: whoami("hunter2"))
    assert "hunter2" not in error.for_model()
    assert not any("hunter2" in str(event) for event in guard.runs.events(run.id))


# Limits.


def test_loops_may_be_let_go(guard: Guard) -> None:
    """A run with `loops` off repeats itself as often as it likes."""
    with guard.run("w", loops="off"):
        assert {look("ada") for _ in range(20)} == {"nothing"}


@pytest.mark.parametrize("rounds", [2, 5])
def test_the_number_of_rounds_can_be_chosen(guard: Guard, rounds: int) -> None:
    """So many rounds are let through as the run says."""
    with guard.run("w", loops=rounds):
        for _ in range(rounds):
            look("ada")
        assert f"came {rounds + 1} times" in detected(lambda: look("ada")).message


def test_more_repeats_that_are_allowed_are_no_loop(guard: Guard) -> None:
    """A run that names `max_repeats` has that many rounds, unless it names `loops` too."""
    with guard.run("w", max_repeats=6):
        for _ in range(6):
            look("ada")
        detected(lambda: look("ada"))


def test_the_file_says_how_many_rounds(tmp_path: Path) -> None:
    """`loops` in the configuration is the number of rounds, or off."""
    for text, made in (("loops: 2", 2), ("loops: off", 9)):
        settings = configuration.loads(f"agent_run:\n  {text}\n")
        guard = Guard(f"sqlite:///{tmp_path}/{made}.db", config=settings)
        with guard.run("w"):
            for _ in range(made):
                look("ada")
            if made == 2:
                detected(lambda: look("ada"))
        guard.close()


@pytest.mark.parametrize("rounds", [1, -1, True, "twice"])
def test_rounds_of_a_run_that_are_none_are_refused(guard: Guard, rounds: Any) -> None:
    """What is neither a number from 2 nor off is refused before the run begins."""
    with pytest.raises(ConfigurationError, match="loops="):
        guard.run("w", loops=rounds)


def test_one_repeat_with_an_effect_between_is_no_turn(guard: Guard) -> None:
    """A run with `max_repeats=1` may look again after it has done something."""

    @tool_contract(effect="write")
    @idempotent(key="{ticket}")
    def refund(ticket: str) -> str:
        return "ok"

    with guard.run("w", max_repeats=1):
        for ticket in ("T-1", "T-2", "T-3"):
            look("ada")
            refund(ticket)


@pytest.mark.parametrize("text", ["1", "twice", "21"])
def test_rounds_that_are_none_are_refused(text: str) -> None:
    """What is neither a small number nor off is refused with its line."""
    with pytest.raises(ConfigurationError, match=r"agent_run.yaml:2: loops"):
        configuration.loads(f"agent_run:\n  loops: {text}\n")


# Progress.


def test_a_call_of_another_process_part_is_no_repeat_without_ids(guard: Guard) -> None:
    """A program that is started again makes its calls again; nobody can tell that from a loop."""
    for _ in range(6):
        with guard.run("w", run_id="r-1"):
            look("ada")


def test_a_loop_goes_on_across_a_resume(guard: Guard) -> None:
    """What the record tells of calls with ids counts when the run is taken up by somebody else."""
    for number in range(3):
        with guard.run("w", run_id="r-1") as run, run.tool_call(f"call-{number}"):
            look("Ada" if number else "ada")
    with guard.run("w", run_id="r-1") as run, run.tool_call("call-3"):
        assert detected(lambda: look("ADA")).steps == (1, 2, 3)


def test_a_call_that_is_delivered_again_is_no_repeat(guard: Guard) -> None:
    """A runtime that delivers its last call again and again, after crashes, is no loop."""
    for _ in range(8):
        with guard.run("w", run_id="r-1") as run, run.tool_call("call-1"):
            look("ada")


def test_a_write_that_is_replayed_after_a_crash_is_no_repeat(guard: Guard) -> None:
    """The record answers a delivered call as often as its runtime is started again."""
    done = []

    @tool_contract(effect="write")
    @idempotent(key="{ticket}")
    def refund(ticket: str) -> str:
        done.append(ticket)
        return "ok"

    for _ in range(8):
        with guard.run("w", run_id="r-1") as run, run.tool_call("call-1"):
            assert refund("T-1") == "ok"
    assert done == ["T-1"]


def test_a_loop_is_seen_by_runs_that_are_entered_for_each_call(guard: Guard) -> None:
    """Adapters that join the run around every single call see the loop as well."""
    for number in range(3):
        with guard.run("w", run_id="r-1", join=True) as run, run.tool_call(f"call-{number}"):
            look("ada")
    with guard.run("w", run_id="r-1", join=True) as run, run.tool_call("call-3"):
        detected(lambda: look("ada"))


def test_another_process_that_joins_sees_the_loop(tmp_path: Path) -> None:
    """Who joins a run that others are in knows from the record what they have done."""
    for number in range(4):
        guard = Guard(f"sqlite:///{tmp_path}/agentguard.db")
        with guard.run("w", run_id="r-1", join=True) as run, run.tool_call(f"call-{number}"):
            if number < 3:
                look("ada")
            else:
                assert detected(lambda: look("ada")).steps == (1, 2, 3)
        guard.close()


def test_an_own_effect_each_time_is_progress_but_not_for_ever(guard: Guard) -> None:
    """A write with an effect of its own per call may repeat itself ten times, with nothing else."""
    basket = []

    @tool_contract(effect="write")
    @idempotent(per="call")
    def add(item: str) -> str:
        basket.append(item)
        return "ok"

    with guard.run("w"):
        for _ in range(10):
            add("egg")
        detected(lambda: add("egg"))
    assert len(basket) == 10


def test_waiting_for_people_is_no_loop(guard: Guard) -> None:
    """A call that waits for a decision may be made again until there is one."""
    from agentguard import ApprovalRequired, requires_approval

    @tool_contract(effect="write")
    @idempotent(key="{ticket}")
    @requires_approval(when="True")
    def refund(ticket: str) -> str:
        return "ok"

    with guard.run("w"):
        for _ in range(6):
            with pytest.raises(ApprovalRequired):
                refund("T-1")


def test_calls_side_by_side_are_no_repeats_of_each_other(guard: Guard) -> None:
    """Equal calls that a model makes at once, in one turn, are let through together."""
    import asyncio

    @tool_contract(effect="read")
    async def ask(name: str) -> str:
        await asyncio.sleep(0)
        return "nothing"

    async def play() -> list[str]:
        async with guard.run("w"):
            return await asyncio.gather(*(ask("ada") for _ in range(8)))

    assert asyncio.run(play()) == ["nothing"] * 8


def test_equal_calls_in_one_answer_of_the_model_are_no_repeats(guard: Guard) -> None:
    """What a model asks for at once it has not seen the result of, even if it is done one by one."""
    with guard.run("w") as run:
        for turn in range(3):
            ask = run.model_started(model="m", messages=["hi"])
            run.model_finished(ask, output="calls")
            for number in range(5):
                with run.tool_call(f"call-{turn}-{number}"):
                    look("ada")
        ask = run.model_started(model="m", messages=["hi"])
        run.model_finished(ask, output="calls")
        with run.tool_call("call-3-0"):
            detected(lambda: look("ada"))


def test_the_memory_is_bounded(guard: Guard) -> None:
    """A run of many calls remembers the last few and the arguments of three."""
    with guard.run("w") as run:
        for number in range(200):
            look(f"name {number}")
        past = run.meter.streaks.past()
    assert len(past) == 64
    assert sum(call.plain is not None for call in past) == 3
