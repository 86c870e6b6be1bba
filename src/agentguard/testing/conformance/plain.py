"""Plain Python: a loop around the model, and the reference that every adapter is held against."""

from __future__ import annotations

import asyncio
import contextvars
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import TypeAdapter

from ... import ApprovalRequired, GuardError
from .runtime import Runtime
from .scene import INPUT_TOKENS, MODEL, OUTPUT_TOKENS, QUESTION, Call, Outcome, Scene, Shown

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from ...hosting import Run

End = tuple[Any, BaseException | None]
Made = tuple[Call, int]
"""A call, and how many equal ones the model made before: models reuse ids."""


class PlainPython(Runtime):
    """No framework: the loop that anybody would write, with `Run.tool_call` around each call."""

    name = "plain Python"
    cannot: ClassVar[Mapping[str, str]] = {
        "test_a_streamed_conversation_is_guarded_like_any_other": "a loop of one's own has no"
        " streaming but its author's",
        "test_the_model_is_told_what_a_person_changed": "the call returns the tool's own result to"
        " the code that made it; `agentguard approvals show` tells the change",
        "test_a_decision_through_the_runtimes_own_channel_counts": "there is no other channel than"
        " `guard.approvals.decide` and the command line",
    }

    def shown(self, tools: Sequence[Callable[..., Any]]) -> list[Shown]:
        """Return what pydantic reads from the signatures."""
        return [Shown(t.__name__, t.__doc__ or "", TypeAdapter(t).json_schema()) for t in tools]

    def play(self, scene: Scene) -> Outcome:
        """Play with a thread for each call of a turn."""
        outcome = Outcome()
        with _caught(outcome), _run(scene) as run:
            talk = _conversation(scene, run, outcome)
            ends: list[End] | None = None
            with ThreadPoolExecutor() as pool:
                while calls := _next(talk, ends):
                    started = [
                        pool.submit(contextvars.copy_context().run, _end_of, scene, run, call)
                        for call in calls
                    ]
                    ends = [future.result() for future in started]
        return outcome

    async def aplay(self, scene: Scene) -> Outcome:
        """Play with a task for each call of a turn."""
        outcome = Outcome()
        with _caught(outcome):
            async with _run(scene) as run:
                talk = _conversation(scene, run, outcome)
                ends: list[End] | None = None
                while calls := _next(talk, ends):
                    ends = await asyncio.gather(*(_aend_of(scene, run, call) for call in calls))
        return outcome


def _run(scene: Scene) -> Run:
    return scene.guard.run(
        "conformance", run_id=scene.run_id, principal=scene.principal, **scene.budget
    )


@contextmanager
def _caught(outcome: Outcome) -> Generator[None]:
    try:
        yield
    except GuardError as error:
        outcome.error = None if isinstance(error, ApprovalRequired) else error


def _next(talk: Generator[list[Made], list[End] | None], ends: list[End] | None) -> list[Made]:
    try:
        return talk.send(ends)
    except StopIteration:
        return []


def _conversation(
    scene: Scene, run: Run, outcome: Outcome
) -> Generator[list[Made], list[End] | None]:
    """Ask the model, give out its calls, take their ends, until it has no more calls.

    The history is written after every message, as a checkpointer does.
    """
    path = scene.folder / "history.json"
    history: list[Any] = json.loads(path.read_text()) if path.exists() else [["user", QUESTION]]
    while True:
        spoken = sum(message[0] == "model" for message in history)
        if history[-1][0] != "model":
            turn = _asked(run, scene, spoken, history)
            history.append(["model", scene.script.answer(spoken)])
            path.write_text(json.dumps(history, default=lambda c: [c.name, c.arguments, c.id]))
        else:
            turn = scene.script.answer(spoken - 1)
        if isinstance(turn, str):
            outcome.said = turn
            return
        spoken = sum(message[0] == "model" for message in history)
        earlier = [made for n in range(spoken - 1) for made in scene.script.answer(n)]
        ends = yield [(call, earlier.count(call)) for call in turn]
        told = _told(turn, ends or [], outcome)
        outcome.told.update(told)
        history.append(["tools", told])
        path.write_text(json.dumps(history, default=lambda c: [c.name, c.arguments, c.id]))


def _asked(run: Run, scene: Scene, spoken: int, history: list[Any]) -> Any:
    """Make a model call, reported to the run as adapters do."""
    asked = run.model_started(model=MODEL, messages=str(history), call_id=f"model-{spoken}")
    turn = scene.script.answer(spoken)
    run.model_finished(
        asked, output=str(turn), input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS
    )
    return turn


def _told(turn: list[Call], ends: list[End], outcome: Outcome) -> dict[str, str]:
    """Return what the model is told; raise what is for the caller."""
    told: dict[str, str] = {}
    stop: GuardError | None = None
    for call, (value, error) in zip(turn, ends, strict=True):
        if isinstance(error, ApprovalRequired):
            outcome.waiting = (*outcome.waiting, error.approval.id)
            stop = stop or error
        elif isinstance(error, GuardError):
            stop = error if error.halts else stop
            told[call.id] = error.for_model()
        elif error is not None:
            told[call.id] = f"failed: {type(error).__name__}"
        else:
            told[call.id] = str(value)
    if stop is not None:
        outcome.told.update(told)
        raise stop
    return told


def _end_of(scene: Scene, run: Run, made: Made) -> End:
    """Make a call, again when it fails: as often as the scene wants its runtime to."""
    end: End = (None, None)
    call, occurrence = made
    for _ in range(1 + scene.retries):
        try:
            with run.tool_call(call.id, occurrence):
                return scene.tools[call.name](**call.arguments), None
        except Exception as error:  # noqa: BLE001 - the end is a value
            end = None, error
    return end


async def _aend_of(scene: Scene, run: Run, made: Made) -> End:
    end: End = (None, None)
    call, occurrence = made
    for _ in range(1 + scene.retries):
        try:
            with run.tool_call(call.id, occurrence):
                return await scene.tools[call.name](**call.arguments), None
        except Exception as error:  # noqa: BLE001 - the end is a value
            end = None, error
    return end
