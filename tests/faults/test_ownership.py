"""Who owns a running effect, who may take it over, and whose answer counts."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentguard import (
    EffectInDoubt,
    Guard,
    Happened,
    NotHappened,
    ToolTimeout,
    current_run,
    idempotent,
    tool_contract,
)
from tests.faults import oracle
from tests.faults.processes import ask
from tests.faults.scenes import attempt, payer, play
from tests.faults.world import World


def test_a_forked_childs_call_is_its_own(folder: Path) -> None:
    """A child forked inside a body calls as an owner of its own, and both calls are recorded."""
    seen = play("forked_in_the_body", folder)
    assert (seen["end"], seen["exits"], seen["owners"]) == ("success", [0], 2)
    assert seen["effects"] == {"T-child": 1, "T-parent": 1}
    assert seen["problems"] == []


def test_a_killed_childs_effect_is_in_doubt_while_its_parent_lives(folder: Path) -> None:
    """A living parent does not keep the effects of its killed child alive."""
    seen = play("child_killed", folder)
    assert (seen["exits"], seen["doubts"], seen["problems"]) == ([-9], ["T-1"], [])


def test_a_killed_parents_effect_is_in_doubt_while_its_child_lives(folder: Path) -> None:
    """A living child does not keep the effects of its killed parent alive: a lock is inherited."""
    seen = play("orphan", folder)
    assert (seen["exits"], seen["doubts"], seen["problems"]) == ([-9], ["T-1"], [])


def test_a_fork_between_two_commits_inherits_no_lock(folder: Path) -> None:
    """Children forked while other threads commit can call at once."""
    seen = play("forked_amid_transactions", folder)
    assert (seen["exits"], seen["problems"]) == ([0] * 10, [])


def test_a_first_call_loads_nothing(folder: Path) -> None:
    """What first calls need is there when a guard is: a fork amid an import keeps its lock for ever."""
    seen = play("first_calls", folder)
    assert (seen["ends"], seen["loaded"]) == (["success", "contract_violation"], [])


def test_a_fork_waits_for_no_thread_that_it_does_not_have(folder: Path) -> None:
    """A child forked while another thread binds a tool can bind and call its own."""
    seen = play("forked_while_binding", folder)
    assert (seen["exits"], seen["problems"]) == ([0], [])


def test_a_fork_keeps_its_record_when_everybody_else_has_closed(folder: Path) -> None:
    """What a forked child commits is seen by those who come later, whoever has left meanwhile."""
    seen = play("fork_outlives", folder)
    assert (seen["exits"], seen["problems"]) == ([0] * 3, [])
    assert seen["effects"] == {"T-1": 1, "T-2": 1, "T-3": 1}


def test_a_store_may_be_opened_twice_in_one_process(folder: Path) -> None:
    """A second guard on the same file takes no lock away from the first."""
    seen = play("two_guards", folder)
    assert (seen["exits"], seen["problems"]) == ([0, 0], [])
    assert seen["effects"] == {"T-1": 1, "T-2": 1}


def test_a_guard_closed_during_a_body_does_not_count_as_dead(folder: Path) -> None:
    """While a body runs nobody else starts it, even when its process has closed the store."""
    seen = play("closed_while_running", folder)
    assert (seen["effects"], seen["other"]) == ({"T-1": 1}, "effect_in_progress")


def test_a_paused_process_is_not_dead(folder: Path) -> None:
    """However late it is, an owner that is stopped keeps its effect, and finishes it later."""
    seen = play("paused", folder)
    assert (seen["other"], seen["effects"], seen["exits"]) == (
        "effect_in_progress",
        {"T-1": 1},
        [0],
    )
    assert (seen["doubts"], seen["problems"]) == ([], [])


def test_looking_whether_an_owner_lives_does_not_keep_it_alive(world: World) -> None:
    """Two processes that look at the same dead owner at the same moment both see that it is dead."""
    assert play("killed", world.folder) == {"exits": [-9]}
    (lock,) = (world.folder / "store.db.owners").iterdir()
    descriptor = os.open(lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # as another process does while it looks
    guard = Guard(world.url)
    assert len(guard.effects.list(state="in_doubt")) == 1
    guard.close()
    os.close(descriptor)


def test_a_closed_event_loop_does_not_stop_the_next_one() -> None:
    """A loop closed while a commit is under way leaves the store usable for others."""
    assert ask("scenes", "closed_loop", "unused") == {"next": "paid"}


class Slow:
    """A sync tool with a deadline whose first body acts only when it is let go."""

    def __init__(self, world: World, *, hook: bool = False) -> None:
        self.go_on = threading.Event()
        self.bodies: list[threading.Thread] = []
        self.world = world
        self.during_the_second: Callable[[], None] | None = None
        self.after_the_look: Callable[[], None] | None = None
        self.error: Exception | None = None
        self.tool = self._tool(self._look if hook else None)

    def _look(self, call: Any) -> Happened | NotHappened:
        done = self.world.effects()[call.arguments["ticket"]]
        if self.after_the_look:
            self.after_the_look()
        return Happened("found") if done else NotHappened()

    def _tool(self, look: Callable[[Any], Any] | None) -> Callable[[str], str]:
        @tool_contract(effect="write", timeout=0.3, isolation="thread")
        @idempotent(key="pay:{ticket}", reconcile=look)
        def pay(ticket: str) -> str:
            self.bodies.append(threading.current_thread())
            if len(self.bodies) > 1:
                if self.during_the_second:
                    self.during_the_second()
                return "second"
            self.go_on.wait()
            self.world.act(ticket, current_run().call.idempotency_key)
            if self.error:
                raise self.error
            return "first"

        return pay

    def end_the_first(self) -> None:
        """Let the first body act and answer, and wait until its answer is written down."""
        self.go_on.set()
        self.bodies[0].join()


def test_a_late_answer_is_evidence_and_never_truth(guard: Guard, world: World) -> None:
    """An answer that comes after a newer start is kept beside the result and does not replace it."""
    slow = Slow(world)
    slow.during_the_second = slow.end_the_first
    with guard.run("late", run_id="r"):
        with pytest.raises(ToolTimeout):
            slow.tool("T-1")
        doubt = guard.effects.list(state="in_doubt")[0]
        guard.effects.resolve(doubt.id, "not_happened", by="dana", reason="it looked so")
        assert slow.tool("T-1") == "second"
        assert slow.tool("T-1") == "second"
    late = guard.effects.show(doubt.id).late
    assert late is not None
    assert (late["fence"], late["outcome"]) == (1, "succeeded")
    assert guard.runs.verify("r") is None


def test_a_late_answer_of_the_last_start_settles_it(guard: Guard, world: World) -> None:
    """When the abandoned body of the newest start answers after all, its answer is the result."""
    slow = Slow(world)
    with guard.run("late", run_id="r"):
        with pytest.raises(ToolTimeout):
            slow.tool("T-1")
        slow.end_the_first()
        assert slow.tool("T-1") == "first"
    assert world.effects() == {"T-1": 1}
    assert oracle.problems(guard, world) == []


def test_no_hook_is_believed_while_the_body_may_still_act(guard: Guard, world: World) -> None:
    """A hook's no counts only when the abandoned body cannot make it a yes any more."""
    slow = Slow(world, hook=True)
    with guard.run("late", run_id="r"):
        with pytest.raises(ToolTimeout):
            slow.tool("T-1")
        with pytest.raises(EffectInDoubt):
            slow.tool("T-1")
        slow.end_the_first()
        assert slow.tool("T-1") == "first"
    assert (len(slow.bodies), world.effects()) == (1, {"T-1": 1})
    assert oracle.problems(guard, world) == []


def test_no_hook_is_believed_that_looked_while_the_body_could_act(
    guard: Guard, world: World
) -> None:
    """A hook's no from before the abandoned body acted does not count after that body has ended."""
    slow = Slow(world, hook=True)
    slow.error = OSError("the reply was lost")
    slow.after_the_look = slow.end_the_first
    with guard.run("late", run_id="r"):
        with pytest.raises(ToolTimeout):
            slow.tool("T-1")
        with pytest.raises(EffectInDoubt):
            slow.tool("T-1")
        slow.after_the_look = None
        assert slow.tool("T-1") == "found"
    assert (len(slow.bodies), world.effects()) == (1, {"T-1": 1})
    assert oracle.problems(guard, world) == []


def test_everybody_sees_the_result_of_the_one_who_works(guard: Guard, world: World) -> None:
    """Callers in other threads wait for the one whose body runs, and get its result."""
    together = threading.Barrier(2)
    pay = payer(world, before=lambda: together.wait() and None)
    ends: list[str] = []

    def call() -> None:
        with guard.run("threads"):
            ends.append(attempt(pay, "T-1", world))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    together.wait()
    for thread in threads:
        thread.join()
    assert ends == ["success"] * 8
    assert [len(results) for results in world.told().values()] == [1]
    assert oracle.problems(guard, world) == []
