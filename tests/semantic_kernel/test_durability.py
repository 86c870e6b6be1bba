"""Where something is executed twice around Semantic Kernel, its guarded effect happens once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from semantic_kernel.contents import ChatHistory
from semantic_kernel.filters import FilterTypes

from agentguard import Guard, Happened, NotHappened, idempotent, tool_contract
from agentguard_semantic_kernel import guard_kernel
from tests.semantic_kernel.world import KINDS, Talk, call, kernel_of, scripted
from tests.support import ROOT, World

BOTH = [("bare", 2), ("guarded", 1)]
"""The framework alone, and guarded: how often the one effect happens."""
ANN = call(("pay", {"to": "ann"}, "1"))


def either(subject: str, function: Any, **options: Any) -> Any:
    """The function itself, or guarded."""
    if subject == "bare":
        return function
    return tool_contract(effect="write")(idempotent(**{"key": "pay:{to}", **options})(function))


def kernel_for(subject: str, kernel: Any, guard: Guard) -> Any:
    """The kernel itself, or guarded."""
    return kernel if subject == "bare" else guard_kernel(kernel, guard, run_id="r-1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subject", "kind", "times"),
    [("bare", "agent", 2), ("guarded", "agent", 1), ("guarded", "service stream", 1)],
)
def test_a_kill_inside_a_function(tmp_path: Path, subject: str, kind: str, times: int) -> None:
    """Killed after the effect and before any record: a new process finishes the conversation."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "integrations"), str(ROOT)])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), paths]),
    }
    script = str(ROOT / "tests/semantic_kernel/worker.py")
    worker = [sys.executable, script, str(tmp_path), kind, subject]
    killed = subprocess.run([*worker, "kill"], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    subprocess.run(worker, env=environment, check=True)
    assert World(tmp_path / f"{subject}.txt").effects == ["ann", *["bob"] * times]
    if subject == "guarded":
        guard = Guard(f"sqlite:///{tmp_path}/agentguard.db")
        assert [effect.state.value for effect in guard.effects.list()] == ["succeeded"] * 2
        assert guard.runs.show("r-1").status == "succeeded"
        guard.close()


@pytest.mark.parametrize(("subject", "times"), BOTH)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_turn_that_failed_after_its_effect(
    guard: Guard, world: World, kind: str, subject: str, times: int
) -> None:
    """The model fails after the function ran, and the application asks again from the beginning."""

    def pay(to: str) -> str:
        """Pay."""
        return world.happen(to)

    model = scripted(ANN, ConnectionError("gone"))
    kernel = kernel_for(subject, kernel_of(model, either(subject, pay)), guard)
    with pytest.raises(ConnectionError):
        await Talk(kernel, kind).ask("pay ann")
    model.script[1] = "done"
    assert str((await Talk(kernel, kind).ask("pay ann"))[0]) == "done"
    assert world.effects == ["ann"] * times


@pytest.mark.parametrize(("subject", "times"), BOTH)
async def test_an_old_history_that_is_gone_on_with_twice(
    guard: Guard, world: World, subject: str, times: int
) -> None:
    """The same saved conversation in two places pays once, though each call is one of its own."""

    def pay(to: str) -> str:
        """Pay."""
        return world.happen(to)

    kernel = kernel_for(
        subject, kernel_of(scripted(ANN, "done"), either(subject, pay, key=None, per="call")), guard
    )
    history = ChatHistory()
    history.add_user_message("pay ann")
    for _ in range(2):
        await Talk(kernel, "agent", history.serialize()).ask()
    assert world.effects == ["ann"] * times


@pytest.mark.parametrize(("subject", "times"), [("bare", 3), ("guarded", 1)])
async def test_a_filter_that_retries_after_a_lost_answer(
    guard: Guard, world: World, subject: str, times: int
) -> None:
    """The function did what it was asked and its answer got lost: retrying repeats nothing."""

    def pay(to: str) -> str:
        """Pay."""
        world.happen(to)
        raise TimeoutError

    def look(call: Any) -> Happened | NotHappened:
        to = call.arguments["to"]
        return Happened(f"found {to}") if to in world.effects else NotHappened()

    async def retrying(context: Any, next: Callable[[Any], Any]) -> None:  # noqa: A002 - SK's name
        for left in (2, 1, 0):
            try:
                return await next(context)  # type: ignore[no-any-return] # it returns nothing
            except Exception:
                if not left:
                    raise
        return None

    kernel = kernel_of(scripted(ANN, "done"), either(subject, pay, reconcile=look))
    kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, retrying)
    talk = Talk(kernel_for(subject, kernel, guard))
    await talk.ask("pay ann")
    assert world.effects == ["ann"] * times
    if subject == "guarded":
        assert talk.results == {"1": "found ann"}
