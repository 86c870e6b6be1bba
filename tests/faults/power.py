"""Power cuts: a worker's life on a disk that forgets what was not synced, cut at every moment.

    python -m tests.faults.mutants tests.faults.power '{"story": "plain", …}'

The worker is the product itself; strace writes down what it asks of the kernel. What the disk may
hold after a cut is an image: files that a new process opens. Prints how many images were looked
at, and what was wrong with which of them.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import random
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agentguard import GuardError, _durable
from agentguard.stores import _files, _owner
from agentguard.stores import sqlite as product
from tests.faults import oracle
from tests.faults.disks import LOSSES, OPTIONS, Disk
from tests.faults.mutants import PLACES
from tests.faults.processes import on_all_cores
from tests.faults.stories import STORIES, Worker
from tests.faults.strace import NoTrace, calls, traced
from tests.faults.world import World

OUTSIDE = frozenset({"effects", "told", "reads"})
"""What the world notes is not on this disk."""
FILES = frozenset({"store.db", "store.db-wal", "store.db-journal", "store.db.mark"})
"""The files that an image has. Owners' locks are never synced: no cut leaves them."""
TICKETS = ("T-2", "T-3", "T-4", "T-5")
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
CERTAIN = ("nothing kept", "all kept")


@dataclass(frozen=True)
class Plan:
    """Which life is cut off, and how often each random loss is drawn.

    Attributes:
        pages: so many pages make the log be copied into the file in the middle of life.
    """

    folder: str
    story: str
    rounds: int
    seed: int
    pages: int = 40


@dataclass(frozen=True)
class Image:
    """What the disk holds after a cut, and what the world outside has seen until then."""

    name: str
    files: dict[str, bytes]
    lines: dict[str, bytes]

    def digest(self) -> bytes:
        """Return what tells this image from others."""
        found = hashlib.blake2b()
        for name, data in sorted({**self.files, **self.lines}.items()):
            found.update(f"{name} {len(data)} ".encode() + data)
        return found.digest()


def main(argument: str) -> None:
    """Record one life and cut it off at every moment, on all cores."""
    plan = Plan(**json.loads(argument))
    folder = Path(plan.folder)
    product._BUSY_FROM, _files._WAL_BYTES = 4, 1 << 18  # the log file is made large soon
    product._WAL_PAGES = plan.pages
    _durable._PATIENCE = 0.05  # nobody is there to be waited for
    live(plan, World(made(folder / "warm")))  # imports of the first time happen here
    gc.freeze()
    world = World(made(folder / "recorded"))
    try:
        if traced(lambda: live(plan, world), folder / "calls", *OPTIONS):
            sys.exit("the story fails without any power cut")
    except NoTrace as reason:
        print(json.dumps({"not_here": str(reason)}))  # noqa: T201 - the answer
        return
    _owner.boot = lambda: "after the power cut"
    found = on_all_cores(folder, partial(judge_part, plan))
    problems = [said for part in found for said in part["problems"]]
    points = sum(part["points"] for part in found)
    print(json.dumps({"points": points, "problems": problems}))  # noqa: T201 - the answer


def made(folder: Path) -> Path:
    """Make a folder."""
    folder.mkdir()
    return folder


def live(plan: Plan, world: World) -> None:
    """Make a store, work, close it, open it again, work, and never come to an end."""
    for closes, tell in ((True, STORIES[plan.story]), (False, pays)):
        worker = Worker(world, is_async=False, hook=False)
        asyncio.run(tell(worker))
        if closes:
            worker.guard.close()


async def pays(worker: Worker) -> None:
    """Pay for more tickets in the same run."""
    worker.open()
    pay = worker.payer(worker.act)
    async with worker.run():
        for ticket in TICKETS:
            await worker.call(pay, ticket)


def images(plan: Plan) -> Iterator[Image]:
    """Cut the power after each thing that happened, and give each image once."""
    folder = Path(plan.folder) / "recorded"
    disk, seen = Disk(folder), set[bytes]()
    happened = list(calls(Path(plan.folder) / "calls"))
    for number, call in enumerate(happened):
        if not disk.told(call):
            continue
        for loss in LOSSES:
            for turn in range(1 if loss in CERTAIN else plan.rounds):
                chance = random.Random(f"{plan.seed} {number} {loss} {turn}")
                image = image_of(disk, loss, chance, f"cut {number} after {call.name}, {loss}")
                if image.digest() not in seen:
                    seen.add(image.digest())
                    yield image


def image_of(disk: Disk, loss: str, chance: random.Random, name: str) -> Image:
    """Take one image of the store; the world outside has power."""
    files = {
        file: data for file, data in disk.after_a_power_cut(loss, chance).items() if file in FILES
    }
    lines = {file: disk.names[file].content() for file in OUTSIDE if file in disk.names}
    return Image(name, files, lines)


def judge_part(plan: Plan, core: int, cores: int) -> dict[str, Any]:
    """Judge every image whose turn it is, and say what was wrong."""
    judged, known, count = list[str](), set[bytes](), 0
    word = os.environ.get(PLACES, "")
    for number, image in enumerate(images(plan)):
        if number % cores == core and word in image.name:
            count += 1
            world = laid_out(plan, image, Path(plan.folder) / f"image-{core}")
            judged += [f"{said} ({image.name})" for said in problems(plan, image, world, known)]
            shutil.rmtree(world.folder)
    return {"points": count, "problems": judged}


def laid_out(plan: Plan, image: Image, folder: Path) -> World:
    """Write an image down as the files that it is."""
    made(folder)
    for name, data in {**image.files, **image.lines}.items():
        (folder / name).write_bytes(data)
    return World(folder)


def problems(plan: Plan, image: Image, world: World, known: set[bytes]) -> list[str]:
    """Open an image with the product, and go on from there unless an equal record did.

    Every image is opened and checked. What a worker then does depends on the rows alone: two
    images with equal rows and an equal world are gone on with once.
    """
    rows, worker = digest_of(plan, image), Worker(world, is_async=False, hook=False)
    try:
        worker.open()
        if worker.guard.store.check() != "ok":
            return ["the file is broken"]
        if rows in known:
            return []
        known.add(rows)
        return goes_on(plan, worker)
    except (GuardError, sqlite3.Error) as error:
        return [f"it cannot be used: {error}"]
    finally:
        if hasattr(worker, "guard"):
            worker.guard.close()


def digest_of(plan: Plan, image: Image) -> bytes:
    """Return what tells the rows of this image, in this world, from others."""
    with tempfile.TemporaryDirectory(dir=plan.folder) as copy:  # who looks, changes the files
        for name, data in image.files.items():
            (Path(copy) / name).write_bytes(data)
        connection = sqlite3.connect(Path(copy) / "store.db")
        names = [name for (name,) in connection.execute(_TABLES)]
        rows = [connection.execute(f"SELECT * FROM {name}").fetchall() for name in names]
        connection.close()
    lines = sorted(image.lines.items())
    return hashlib.blake2b(repr((names, rows, lines)).encode()).digest()


def goes_on(plan: Plan, worker: Worker) -> list[str]:
    """Let a new process do all of it again, and ask the oracle before and after."""
    before = [said for said in oracle.problems(worker.guard, worker.world) if "stuck" not in said]
    worker.guard.close()
    for tell in (STORIES[plan.story], pays):
        asyncio.run(tell(worker))
        worker.guard.close()
    worker.open()
    return [*before, *oracle.problems(worker.guard, worker.world, denied=["denied"])]


if __name__ == "__main__":
    main(sys.argv[1])
