"""Workers whose kernel kills them or lies to them at one system call, and what they leave.

    python -m tests.faults.mutants tests.faults.injections '{"story": "plain", …}'

prints how many system calls were hit, and what was wrong after which of them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agentguard import GuardError, _durable
from agentguard.stores import sqlite
from tests.faults import zygote
from tests.faults.mutants import PLACES
from tests.faults.processes import ended, fork, on_all_cores
from tests.faults.stories import STORIES, Worker
from tests.faults.strace import NoTrace, calls, traced
from tests.faults.world import World

KILLED = -signal.SIGKILL
_WRITES = ("pwrite64", "write", "ftruncate", "fallocate")
_SYNCS = ("fdatasync", "fsync")
FAULTS = {
    # A call that strace kills at is not carried out: what is there then is what was there before it.
    "KILL": (*_WRITES, *_SYNCS, "mkdir", "openat", "unlink", "rename"),
    "ENOSPC": (*_WRITES, "mkdir", "openat"),
    "EIO": (*_WRITES, *_SYNCS, "pread64", "read"),
}
OF_THE_WORLD = {"write", "openat"}
"""The world uses them, too: a fault that stays would stop the world, and not the store alone."""


@dataclass(frozen=True)
class Plan:
    """Which worker is hit, by what, and where.

    Attributes:
        fault: KILL, or the error that the kernel answers with.
        stays: the fault comes at the chosen call and at all later ones of its name.
        share: which part of the calls is hit; 1 for all of them.
    """

    folder: str
    story: str
    hook: bool
    fault: str
    stays: bool
    fresh: bool
    first_death: str
    share: float
    seed: int


@dataclass(frozen=True)
class Place:
    """The system call that is hit: the how manieth of its name, and on which file."""

    name: str
    number: int
    file: str

    def __str__(self) -> str:
        return f"{self.name} {self.number} on {self.file}"


def main(argument: str) -> None:
    """Hit one worker after the other, on all cores."""
    plan = Plan(**json.loads(argument))
    sqlite._BUSY_FROM = 4  # so that the log file is made large in every story
    _durable._PATIENCE = 0.05  # nobody is there to be waited for
    folder = Path(plan.folder)
    live(plan, World(folder / "warm"))  # imports of the first time happen here, before any fork
    gc.freeze()
    zygote.template(zygote_plan(plan), folder / "template")
    try:
        places = chosen(plan, enumerated(plan, folder / "all"))
    except NoTrace as reason:
        print(json.dumps({"not_here": str(reason)}))  # noqa: T201 - the answer
        return
    parts = on_all_cores(folder, lambda core, cores: hit_all(plan, places[core::cores]))
    problems = [said for part in parts for said in part]
    print(json.dumps({"points": len(places), "problems": problems}))  # noqa: T201 - the answer


def zygote_plan(plan: Plan) -> zygote.Plan:
    """Say the same to what prepares worlds."""
    return zygote.Plan(plan.folder, plan.story, False, plan.hook, plan.first_death, plan.fresh)


def chosen(plan: Plan, places: list[Place]) -> list[Place]:
    """Choose the places to hit, all of them, some by chance, or those that a mutant names."""
    word = os.environ.get(PLACES, "")
    if word:
        return [place for place in places if word in str(place)]
    count = round(len(places) * plan.share)
    return random.Random(plan.seed).sample(places, count) if plan.share < 1 else places


def enumerated(plan: Plan, folder: Path) -> list[Place]:
    """Let one worker live, and list the system calls that the fault can come at."""
    world, output = prepared(plan, folder), folder / "calls"
    names = [name for name in FAULTS[plan.fault] if not (plan.stays and name in OF_THE_WORLD)]
    died = traced(lambda: live(plan, world), output, "-e", f"trace={','.join(names)}")
    if died:
        sys.exit(f"the story fails without any fault: {died}")
    return list(places_in(output, folder, killed=plan.fault == "KILL"))


def places_in(output: Path, folder: Path, *, killed: bool) -> Iterator[Place]:
    """List calls on the store's files, and for a kill also those that make the world's lines."""
    seen: Counter[str] = Counter()
    for call in calls(output):
        seen[call.name] += 1
        file = file_of(call.arguments, folder)
        if call.name == "openat" and "O_CREAT" not in call.arguments:
            continue
        if file.startswith("store.db") or (killed and file in ("effects", "told")):
            yield Place(call.name, seen[call.name], file)


def file_of(arguments: str, folder: Path) -> str:
    """Name the file that a call is about, as it is called in the world's folder."""
    _, inside, rest = arguments.partition(f"{folder}/")
    return rest.split(">")[0].split('"')[0] if inside else ""


def prepared(plan: Plan, folder: Path) -> World:
    """Make the world that the worker finds."""
    return zygote.prepared(zygote_plan(plan), folder)


def live(plan: Plan, world: World) -> None:
    """Be a worker that does its story, does it again, and goes in peace."""
    world.folder.mkdir(exist_ok=True)
    for _ in range(2 if plan.fault != "KILL" else 1):
        worker = Worker(world, False, plan.hook)
        try:
            asyncio.run(STORIES[plan.story](worker))
        except GuardError:
            """The store said that it cannot be written; the worker tries again."""
        if hasattr(worker, "guard"):
            worker.guard.close()


def hit_all(plan: Plan, places: list[Place]) -> list[str]:
    """Hit one worker after the other and list what was wrong."""
    return [f"{wrong} ({place})" for place in places for wrong in hit(plan, place)]


def hit(plan: Plan, place: Place) -> list[str]:
    """Hit a worker at one place, let another do all of it again, and ask the oracle."""
    folder = Path(plan.folder) / str(place).replace(" ", "-").replace("/", "-")
    world, output = prepared(plan, folder), folder / "calls"
    what = "signal=KILL" if plan.fault == "KILL" else f"error={plan.fault}"
    when = f"{place.number}{'+' if plan.stays else ''}"
    died = traced(
        lambda: live(plan, world), output,
        "-e", f"trace={place.name}", "-e", f"inject={place.name}:{what}:when={when}",
    )  # fmt: skip
    wrong = missed(plan, place, died, output, folder)
    case, next_one = zygote.Case(str(place)), folder / "answer"
    if ended(fork(lambda: zygote.save(next_one, [zygote.go_on(zygote_plan(plan), world, case)]))):
        wrong.append("the worker after it failed")
    else:
        (saved,) = json.loads(next_one.read_text())
        wrong += saved["problems"]
        wrong += [] if saved["end"] in ("success", "effect_in_doubt") else [f"end: {saved['end']}"]
    shutil.rmtree(folder)
    return wrong


def missed(plan: Plan, place: Place, died: int, output: Path, folder: Path) -> list[str]:
    """Say if the fault did not come where it was to come, or if the worker broke because of it."""
    if plan.fault == "KILL":
        return [] if died == KILLED else [f"the worker ended with {died} instead of being killed"]
    hits = [call for call in calls(output) if call.injected]
    if not hits or file_of(hits[0].arguments, folder).split(".lock")[0][:12] != place.file[:12]:
        return ["the fault did not come where it was expected"]
    return [f"the worker ended with {died}"] if died else []


if __name__ == "__main__":
    main(sys.argv[1])
