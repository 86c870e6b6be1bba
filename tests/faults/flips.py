"""Files that are not as they were written: one bit flipped, a log cut off or gone, an old copy.

    python -m tests.faults.mutants tests.faults.flips '{"flips": 1500, …}'

A change is harmless if every row reads as before and SQLite's own check finds nothing. Otherwise
it must be found: by whoever uses the store, or at least by `agentguard doctor`. It must never make
an effect happen twice.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from agentguard import (
    Guard,
    GuardError,
    _durable,
    budget,
    idempotent,
    requires_approval,
    tool_contract,
)
from agentguard.ledger import heads, queries
from agentguard.stores import _files
from agentguard.stores import sqlite as product
from tests.faults.damage import FILES, Damage, State, damages, laid_out, rows_of
from tests.faults.mutants import PLACES
from tests.faults.processes import ended, fork, on_all_cores
from tests.faults.world import World

TICKETS = tuple(f"T-{number}" for number in range(24))
"""So many rows that the table of effects has a page above its pages."""
UNSEALED = {"budgets", "rates", "switches", "owners", "meta", "tenants"}
"""Nothing finds a flipped bit here; docs/guarantees.md says so."""
RAISED = "wrong: raised "
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """How many bits are flipped, and which: other ones in another turn."""

    folder: str
    flips: int
    seed: int
    turn: int = 0


Tool = Callable[[str], str]


def tools(world: World) -> tuple[Tool, Tool, Tool]:
    """Make a tool that pays, one that people have to approve, and one whose replies are lost."""

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    @budget(cost="0.01", max_calls=100)
    def pay(ticket: str) -> str:
        world.act(ticket)
        return f"paid {ticket}"

    @requires_approval()
    @tool_contract(effect="write")
    @idempotent(key="refund:{ticket}")
    def refund(ticket: str) -> str:
        world.act(f"refund-{ticket}")
        return f"refunded {ticket}"

    @tool_contract(effect="write")
    @idempotent(key="lose:{ticket}")
    def lose(ticket: str) -> str:
        world.act(f"lost-{ticket}")
        raise RuntimeError("the reply was lost")

    return pay, refund, lose


class Work:
    """A worker's life: writes, some approved, one refused, one that waits, one in doubt."""

    def __init__(self, world: World) -> None:
        self.ends: dict[str, str] = {}
        self.pay, self.refund, self.lose = tools(world)
        self.guard = Guard(world.url)

    def do(self, tickets: tuple[str, ...] = TICKETS) -> None:
        """Do all of it, or all of it again."""
        for turn in range(2):
            with self.guard.run("paying", run_id="r-1", max_steps=500, max_spend_usd="5"):
                self._call(self.pay, *tickets)
            with self.guard.run("refunding", run_id="r-2"):
                self._call(self.refund, "A", "denied", "B")
            if turn == 0:
                self._decide()
        with self.guard.run("losing", run_id="r-3"):
            self._call(self.lose, "L")

    def _call(self, tool: Tool, *tickets: str) -> None:
        for ticket in tickets:
            try:
                end = f"success: {tool(ticket)}"
            except GuardError as error:
                end = error.kind
            self.ends[f"{tool.__name__} {ticket}"] = end

    def _decide(self) -> None:
        for waiting in self.guard.approvals.list("pending"):
            said = {"A": "approve", "denied": "reject"}.get(str(waiting.arguments["ticket"]))
            if said:
                self.guard.approvals.decide(waiting.id, said, by="dana", reason="as it should be")


def main(argument: str) -> None:
    """Damage the files in one way after the other, on all cores."""
    plan = Plan(**json.loads(argument))
    folder = Path(plan.folder)
    product._BUSY_FROM, _files._WAL_BYTES, product._WAL_PAGES = 4, 1 << 17, 60
    _durable._PATIENCE = 0.05  # nobody is there to be waited for
    (folder / "parts").mkdir()
    states = recorded(folder)
    gc.freeze()
    parts = on_all_cores(folder, partial(judge_part, plan, states))
    kinds = sum((Counter(part["kinds"]) for part in parts), Counter())
    problems = [said for part in parts for said in part["problems"]]
    found = {"points": kinds.total(), "problems": problems, "kinds": kinds}
    print(json.dumps(found))  # noqa: T201 - the answer


def recorded(folder: Path) -> dict[str, State]:
    """Let workers work: one half of it, all of it, and all of it without closing the store."""
    world = World(folder / "recorded")
    world.folder.mkdir()
    states = {}
    for name, tickets, closes in (
        ("old", TICKETS[:12], True), ("closed", TICKETS, True), ("killed", (*TICKETS, "T-more"), False),
    ):  # fmt: skip
        assert not ended(
            fork(lambda tickets=tickets, closes=closes: work(world, tickets, closes=closes))
        )
        states[name] = state_of(folder, world, tickets)
    return states


def work(world: World, tickets: tuple[str, ...], *, closes: bool) -> None:
    """Be the process that works."""
    worker = Work(world)
    worker.do(tickets)
    if closes:
        worker.guard.close()


def state_of(folder: Path, world: World, tickets: tuple[str, ...]) -> State:
    """Take the files as they are, and see what a next worker makes of them."""
    files = {
        name: (world.folder / name).read_bytes() for name in FILES if (world.folder / name).exists()
    }
    lines = (world.folder / "effects").read_bytes()
    state = State(files, lines, world.folder / "store.db.owners", {}, {})
    copy = laid_out(state, files, folder / "copy")
    rows = rows_of(copy.folder)
    shutil.rmtree(copy.folder)
    copy = laid_out(state, files, folder / "copy")
    worker = Work(copy)
    worker.do()
    worker.guard.close()
    shutil.rmtree(copy.folder)
    return replace(state, rows=rows, ends=worker.ends)


def judge_part(plan: Plan, states: dict[str, State], core: int, cores: int) -> dict[str, Any]:
    """Judge every damage whose turn it is."""
    kinds, problems = Counter[str](), list[str]()
    word = os.environ.get(PLACES, "")
    for number, damage in enumerate(damages(plan.flips, f"{plan.seed} {plan.turn}", states)):
        if number % cores == core and word in damage.name:
            kind, wrong = judged(damage, Path(plan.folder) / "parts" / str(core))
            kinds[kind] += 1
            problems += [f"{said} ({damage.name})" for said in wrong]
    return {"kinds": kinds, "problems": problems}


def judged(damage: Damage, folder: Path) -> tuple[str, list[str]]:
    """Say what became of the damage, and what was wrong with that."""
    differ = different(
        damage.state.rows, tried(damage, folder, lambda world: rows_of(world.folder))
    )
    sick = tried(damage, folder, diagnosis)
    if not differ and not sick:
        return "harmless", []
    found, wrong = tried(damage, folder, partial(used, damage))
    if found:
        return "found in use", wrong
    wrong += [sick] if sick.startswith(RAISED) else []
    if sick:
        return "found by the doctor", [] if damage.is_mixture else wrong
    if differ <= UNSEALED and not wrong:
        return "unseen where no seal is", []
    return "unseen", wrong or [f"wrong: {', '.join(sorted(differ))} changed in silence"]


def tried(damage: Damage, folder: Path, work: Callable[[World], T]) -> T:
    """Do something with damaged files of its own."""
    try:
        return work(laid_out(damage.state, damage.files, folder))
    finally:
        shutil.rmtree(folder)


def different(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Name the tables that read differently."""
    return {name for name in (*before, *after) if before.get(name) != after.get(name)}


def diagnosis(world: World) -> str:
    """Say what somebody finds who looks for damage."""
    try:
        guard = Guard(world.url)
    except GuardError as error:
        return error.message
    try:
        found = [] if guard.store.check() == "ok" else ["the file is broken"]
        found += guard.store.read(queries.damaged)
        found += [said for run in guard.runs.list() if (said := guard.runs.verify(run.id))]
        found += guard.store.read(lambda tx: list(heads.contradictions(tx, "default")))
    except GuardError as error:
        return error.message
    except Exception as error:  # noqa: BLE001 - nobody may see anything but our own errors
        return f"{RAISED}{error!r}"
    finally:
        guard.close()
    return "; ".join(found)


def used(damage: Damage, world: World) -> tuple[str, list[str]]:
    """Do the same work again: say how the damage was found, and what was wrong."""
    found, ends = "", dict[str, str]()
    try:
        worker = Work(world)
        ends = worker.ends
        worker.do()
        worker.guard.close()
    except GuardError as error:
        found = error.message
    except Exception as error:  # noqa: BLE001 - nobody may see anything but our own errors
        return repr(error), [f"{RAISED}{error!r}"]
    others = [f"{name} {end}" for name, end in ends.items() if end != damage.state.ends[name]]
    wrong = [f"duplicate: {name}" for name, times in world.effects().items() if times > 1]
    wrong += [f"wrong: told {end}" for end in others if " success: " in end]
    return found or "; ".join(others), wrong


if __name__ == "__main__":
    main(sys.argv[1])
