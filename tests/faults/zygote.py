"""A warm process that forks workers, kills each at another place, and looks at what is left.

    python -m tests.faults.mutants tests.faults.zygote '{"story": "plain", …}'

prints one JSON list of cases.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from agentguard import Guard, _durable
from tests.faults import oracle
from tests.faults.mutants import PLACES
from tests.faults.probes import Points, install, interrupt, kill
from tests.faults.processes import ended, fork
from tests.faults.stories import STORIES, Worker
from tests.faults.world import World

KILLED = signal.SIGKILL


@dataclass(frozen=True)
class Plan:
    """Which worker is killed, where, and how the one after it goes on.

    Attributes:
        story: what the workers do.
        first_death: the place where an earlier worker died already; then a recovery is killed.
        fresh: the killed worker also creates the store.
        interrupted: the worker is not killed; it gets a KeyboardInterrupt, and its process lives.
        hook: the tool can look whether it happened.
        server: the address of a database, in which each process that plays has a schema for its
            worlds, one after the other. Without it, each world has a file.
        step: of the places, each in so many is tried, from *first* on.
    """

    folder: str
    story: str
    is_async: bool
    hook: bool
    first_death: str = ""
    fresh: bool = False
    interrupted: bool = False
    server: str = ""
    step: int = 1
    first: int = 0


@dataclass
class Case:
    """One death and what came after it."""

    point: str
    state: str = ""
    effects: int = 0
    end: str = ""
    problems: list[str] = dataclasses.field(default_factory=list)


def main(argument: str) -> None:
    """Play every case of one plan on all cores."""
    plan = Plan(**json.loads(argument))
    folder = Path(plan.folder)
    TypeAdapter(str).json_schema()  # pydantic looks for its plugins once
    if plan.server:
        importlib.import_module("agentguard.stores.postgres")  # once, before there are forks
    gc.freeze()  # forks share what is there already
    template(plan, folder / "template")
    points = enumerate_points(plan, folder / "all")
    word = os.environ.get(PLACES, "")
    named = [(number, name) for number, name in enumerate(points) if word in name]
    chosen = named[plan.first % plan.step :: plan.step]
    cases = [(number, name, folder / str(number)) for number, name in chosen]
    cores = os.cpu_count() or 1
    results = in_children(
        [partial(play, plan, cases[core::cores]) for core in range(cores)], folder
    )
    print(json.dumps(results))  # noqa: T201 - the answer to whoever started this process


def in_child(work: Callable[[], object]) -> int:
    """Run *work* in a fork of this process and return how that ended: 0, or minus the signal."""
    return ended(fork(work))


def in_children(parts: list[Callable[[], list[Case]]], folder: Path) -> list[dict[str, object]]:
    """Run every part in a fork of its own, at the same time; return all their cases."""
    answers = [folder / f"answer-{number}" for number in range(len(parts))]
    children = [
        fork(lambda answer, part: save(answer, part()), *pair)
        for pair in zip(answers, parts, strict=True)
    ]
    exits = [ended(child) for child in children]
    if any(exits):
        sys.exit("a part failed")
    return [case for answer in answers for case in json.loads(answer.read_text())]


def save(answer: Path, cases: list[Case]) -> None:
    """Write the cases of one part down."""
    answer.write_text(json.dumps([dataclasses.asdict(case) for case in cases]))


def enumerate_points(plan: Plan, folder: Path) -> list[str]:
    """Let one worker live, and list the places it passed."""
    world = prepared(plan, folder)
    listing = folder / "points"
    if in_child(lambda: listing.write_text(json.dumps(tell(plan, world, None).passed))):
        sys.exit("the story fails without any kill")
    found: list[str] = json.loads(listing.read_text())
    return found


def template(plan: Plan, folder: Path) -> World:
    """Make the world that every worker of *plan* finds: an empty store, or what a dead one left."""
    folder.mkdir()
    world = World(folder, address(plan))
    if not plan.fresh:
        in_child(lambda: Guard(world.url).close())
    oracle.wipe(world, tables=plan.fresh)
    if plan.first_death:
        first = dataclasses.replace(plan, story="plain", first_death="")
        died = in_child(lambda: tell(first, world, plan.first_death))
        assert died == -KILLED, f"the first worker ended with {died}"
        oracle.wait_for_silence(world)
    return world


def prepared(plan: Plan, folder: Path) -> World:
    """Copy the template; locks are linked, since a lock proves something only as the same file."""
    if plan.server:
        return template(plan, folder)
    folder.mkdir()
    world, found = World(folder), Path(plan.folder) / "template"
    if plan.fresh:
        return world
    owners = folder / "store.db.owners"
    owners.mkdir()
    for path in found.iterdir():
        if path.is_file() and not path.name.endswith("-shm"):
            shutil.copy(path, folder)
    for lock in (found / "store.db.owners").iterdir():
        os.link(lock, owners / lock.name)
    return world


def address(plan: Plan) -> str | None:
    """Return the store of a new world, or None for a file in it."""
    if not plan.server:
        return None
    name = f"by_{os.getpid()}"
    return f"{plan.server}?schema={name}&application_name={name}"


def tell(plan: Plan, world: World, chosen: int | str | None) -> Points:
    """Be the worker, up to its death or to the end of the story."""
    points = Points(chosen, interrupt if plan.interrupted else kill)
    install(points, on_postgres=bool(plan.server))
    worker = Worker(world, plan.is_async, plan.hook, points)
    asyncio.run(STORIES[plan.story](worker))
    return points


def play(plan: Plan, cases: list[tuple[int, str, Path]]) -> list[Case]:
    """Kill one worker after the other, and let the next one go on."""
    return [play_one(plan, number, name, folder) for number, name, folder in cases]


def play_one(plan: Plan, number: int, name: str, folder: Path) -> Case:
    """Kill a worker at one place, let another do all of it again, and ask the oracle."""
    world, case = prepared(plan, folder), Case(f"{number:3} {name}")
    died = -KILLED if plan.interrupted else in_child(lambda: tell(plan, world, number))
    oracle.wait_for_silence(world)
    if died != -KILLED:
        case.problems.append(f"the worker ended with {died} instead of being killed")
    answer = folder / "answer"
    if plan.interrupted:
        exit_code = in_child(lambda: save(answer, [live_on(plan, world, case, number)]))
    else:
        exit_code = in_child(lambda: save(answer, [go_on(plan, world, case)]))
    if exit_code:
        case.problems.append(f"the worker after it ended with {exit_code}")
        return case
    return Case(**json.loads(answer.read_text())[0])


def live_on(plan: Plan, world: World, case: Case, number: int) -> Case:
    """Be a worker that is interrupted, and then do the story again in the same process."""
    try:
        tell(plan, world, number)
    except KeyboardInterrupt:
        return go_on(plan, world, case)
    case.problems.append("the interrupt was swallowed")
    return case


def go_on(plan: Plan, world: World, case: Case) -> Case:
    """Be the next worker: see what is left, do the story twice over, compare with the world."""
    case.state = state(world)
    _durable._PATIENCE = 0.05  # nobody is there to be waited for
    for _ in range(2):
        worker = Worker(world, plan.is_async, plan.hook)
        asyncio.run(STORIES[plan.story](worker))
    case.end, case.effects = worker.ends["T-1"], world.effects()["T-1"]
    case.problems += oracle.problems(worker.guard, world, denied=["denied"])
    return case


def state(world: World) -> str:
    """Return the state of the effect as the killed worker left it, and of the approval."""
    if not oracle.has_store(world):
        return "no store"
    names = {key: name for key, name in world.names().items() if name == "T-1"}
    rows = oracle.read(world, "SELECT key, state FROM effects ORDER BY created_at, key")
    states = [row["state"] for row in rows if row["key"] in names] or [r["state"] for r in rows]
    return " + ".join(states) or "nothing"


if __name__ == "__main__":
    main(sys.argv[1])
