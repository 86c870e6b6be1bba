"""Crowds: many callers at once, in threads, tasks and processes, on one store."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentguard import Guard, GuardError, budget, current_run, idempotent, tool_contract
from tests.faults import oracle
from tests.faults.scenes import attempt, in_threads, payer, play
from tests.faults.test_kills import Record
from tests.faults.world import World

AFFORDABLE = 33  # calls at 0.03 that fit into 1.00


@pytest.mark.parametrize("count", [2, 8, 16])
def test_processes_with_fifty_equal_keys_make_fifty_effects(
    folder: Path, record_property: Record, count: int
) -> None:
    """However many processes ask for the same key, it happens once and all get one result."""
    seen = play("crowd", folder, count)
    record_property("points", count * 50)
    assert seen["exits"] == [0] * count
    assert seen["effects"] == {f"T-{number}": 1 for number in range(50)} == seen["told"]
    assert (seen["doubts"], seen["problems"]) == ([], [])


def test_spawned_processes_and_their_threads_make_one_effect_a_key(folder: Path) -> None:
    """A key is one effect also across spawned workers and the threads of each."""
    seen = play("spawned", folder)
    assert (seen["ends"], seen["told"]) == (["success"], [1] * 10)
    assert seen["effects"] == {f"T-{number}": 1 for number in range(10)}
    assert seen["problems"] == []


def test_thirty_two_threads_never_spend_more_than_their_run_has(guard: Guard, world: World) -> None:
    """A run's max_spend_usd holds against threads, and is used to the last call that fits."""
    pay = payer(world, budget(cost="0.03"))
    with guard.run("crowd", run_id="r", max_spend_usd="1.00") as run:
        in_threads(32, lambda t: [attempt(pay, f"T-{t}-{n}") for n in range(4)], run)
    assert world.effects().total() == AFFORDABLE
    assert str(guard.runs.show("r").spent_usd) == "0.99"
    assert oracle.problems(guard, world) == []


@pytest.mark.parametrize(
    ("limit", "most"),
    [({"cost": "0.03", "max_spend_usd": "1.00"}, AFFORDABLE), ({"max_calls": 20}, 20)],
    ids=["money", "calls"],
)
def test_thirty_two_threads_never_overdraw_a_tool(
    guard: Guard, world: World, limit: dict[str, Any], most: int
) -> None:
    """A tool's own budget holds against threads, and is used to the last call that fits."""
    pay = payer(world, budget(**limit))
    with guard.run("crowd", run_id="r") as run:
        in_threads(32, lambda t: [attempt(pay, f"T-{t}-{n}") for n in range(4)], run)
    assert world.effects().total() == most
    assert oracle.problems(guard, world) == []


def test_thirty_two_threads_never_take_more_steps_than_their_run_has(
    guard: Guard, world: World
) -> None:
    """A run's max_steps counts reads and writes together, whichever are under way."""
    pay = payer(world)

    @tool_contract(effect="read")
    def look(ticket: str) -> str:
        world.look()
        return ticket

    with guard.run("crowd", run_id="r", max_steps=40) as run:
        in_threads(32, lambda t: [attempt((look, pay)[n % 2], f"T-{t}-{n}") for n in range(4)], run)
        assert world.looks() + world.effects().total() <= 40
        while attempt(look, "alone") == "success":
            """Take what was refused only because others might have taken it at that moment."""
    assert world.looks() + world.effects().total() == 40 == guard.runs.show("r").steps
    assert oracle.problems(guard, world) == []


def test_a_read_under_way_takes_the_room_of_a_write(guard: Guard, world: World) -> None:
    """A write inside a read is refused when the read has taken the run's last step."""
    pay = payer(world)

    @tool_contract(effect="read")
    def look(ticket: str) -> str:
        return attempt(pay, ticket)

    with guard.run("nested", run_id="r", max_steps=1):
        assert look("T-1") == "budget_exceeded"
    assert (world.effects().total(), guard.runs.show("r").steps) == (0, 1)


async def crowd_of_tasks(guard: Guard, world: World, *policies: Any, **limits: Any) -> Counter[str]:
    """Let two hundred tasks of one run call at once, and count how their calls ended."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    async def pay(ticket: str) -> str:
        await asyncio.sleep(0)
        world.act(ticket, current_run().call.idempotency_key)
        return "paid"

    for policy in policies:
        pay = policy(pay)

    async def one(number: int) -> str:
        try:
            return await pay(f"T-{number}")
        except GuardError as error:
            return error.kind

    async with guard.run("crowd", run_id="r", **limits):
        return Counter(await asyncio.gather(*(one(number) for number in range(200))))


async def test_two_hundred_tasks_never_spend_more_than_their_run_has(
    guard: Guard, world: World
) -> None:
    """A run's max_spend_usd holds against tasks, and is used to the last call that fits."""
    ends = await crowd_of_tasks(guard, world, budget(cost="0.03"), max_spend_usd="1.00")
    assert ends == {"paid": AFFORDABLE, "budget_exceeded": 200 - AFFORDABLE}
    assert world.effects().total() == AFFORDABLE
    assert oracle.problems(guard, world) == []


@pytest.mark.parametrize(
    ("limit", "most"),
    [({"cost": "0.03", "max_spend_usd": "1.00"}, AFFORDABLE), ({"max_calls": 20}, 20)],
    ids=["money", "calls"],
)
async def test_two_hundred_tasks_never_overdraw_a_tool(
    guard: Guard, world: World, limit: dict[str, Any], most: int
) -> None:
    """A tool's own budget holds against tasks, and is used to the last call that fits."""
    ends = await crowd_of_tasks(guard, world, budget(**limit))
    assert ends == {"paid": most, "budget_exceeded": 200 - most}
    assert oracle.problems(guard, world) == []


async def test_two_hundred_tasks_never_take_more_steps_than_their_run_has(
    guard: Guard, world: World
) -> None:
    """A run's max_steps holds against tasks, and every step that it has can be taken."""
    ends = await crowd_of_tasks(guard, world, max_steps=40)
    assert (ends["paid"], guard.runs.show("r").steps) == (40, 40)
    assert oracle.problems(guard, world) == []


def test_four_processes_share_one_runs_money(folder: Path) -> None:
    """A run's max_spend_usd holds for all processes together, and is used to the last call."""
    seen = play("shared_money", folder)
    assert (seen["paid"], seen["spent"], seen["exits"]) == (AFFORDABLE, "0.99", [0] * 4)
    assert seen["problems"] == []


def test_four_processes_share_one_runs_steps(folder: Path) -> None:
    """A run's max_steps holds for the writes of all processes together."""
    seen = play("shared_steps", folder)
    assert (seen["paid"], seen["steps"], seen["exits"]) == (40, 40, [0] * 4)
    assert seen["problems"] == []


def test_four_processes_share_one_runs_steps_for_reads(folder: Path) -> None:
    """Reads of other processes are seen at the next commit: each process is off by an eighth."""
    seen = play("shared_reads", folder)
    assert 40 <= seen["reads"] <= 40 + 3 * 40 // 8
    assert (seen["exits"], seen["problems"]) == ([0] * 4, [])


def test_eight_callers_of_one_approval_start_it_once(folder: Path) -> None:
    """An approval that many processes come for at once is used up by exactly one start."""
    seen = play("race_to_start", folder)
    assert seen["asked"] == ["approval_required"]
    assert seen["exits"] == [0] * 8
    assert seen["effects"] == {f"T-{number}": 1 for number in range(10)}
    assert (seen["fences"], seen["problems"]) == ([1] * 10, [])


def test_of_people_who_approve_and_reject_at_once_one_wins(folder: Path) -> None:
    """The first word on an approval stands, and the call runs exactly if it was a yes."""
    seen = play("race_to_decide", folder)
    assert seen["exits"] == [0] * 8
    assert sorted(approval_id for approval_id, _ in seen["said"]) == sorted(seen["shown"])
    for approval_id, word in seen["said"]:
        status, ticket = seen["shown"][approval_id]
        assert (word, status) in (("approve", "used"), ("reject", "rejected"))
        assert (seen["effects"].get(ticket, 0), seen["ends"][ticket]) == (
            (1, "success") if status == "used" else (0, "approval_rejected")
        )
    assert seen["problems"] == []
