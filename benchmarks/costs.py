"""What a guarded call costs, room by room: shares of CPU, by samples of whoever is using it.

A sampler slows nothing down unevenly, as a tracing profiler does with small functions. A sample
belongs to the innermost frame that a room knows; what C code does (SQLite, hashes, JSON, pydantic,
the kernel) is found under the Python function that called it. Waiting is not sampled.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .cells import duration
from .measure import Say
from .profiled import SAMPLES

SECONDS = 5.0
SUBJECTS = {
    "read": ("read", "guarded read, SDK span"),
    "write": ("write", "guarded write, used store"),
    "32 writers": ("writers", "guarded write, tasks"),
    "write, PostgreSQL": ("write-postgres", "guarded write"),
    "32 writers, PostgreSQL": ("writers-postgres", "guarded write, tasks"),
}
ROOMS = (
    ("spans", r"opentelemetry|agentguard/telemetry"),
    ("hashes, seals and canonical JSON", r"agentguard/canonical|json/(?:encoder|__init__)|hashlib|hmac"),
    ("contract: arguments and result", r"agentguard/(?:_signature|contract|codec|_jsonschema)|pydantic"),
    ("keys, rules, budgets, counting",
     r"agentguard/(?:_decide|_keys|idempotency|expressions|approval|budget|_meter|policies)"),
    ("the ledger's verbs", r"agentguard/ledger/"),
    ("group commit and waiting for it", r"agentguard/stores/_writer"),
    ("the database, seen from its client", r"agentguard/stores/|psycopg|sqlite3"),
    ("the guarded call itself", r"agentguard/|wrapt|contextlib"),
    ("event loop and threads", r"asyncio|threading|concurrent|selectors|queue"),
    ("the benchmark", r"benchmarks/"),
)  # fmt: skip
"""Rooms and the files they are known by; a frame belongs to the first that knows it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Where the CPU of one subject went.

    Attributes:
        name: the subject, as the table calls it.
        cpu: seconds of CPU a step, in this process.
        wall: seconds a step, of all callers together.
        samples: how many there are.
        shares: of the samples, by room.
        functions: the functions with the most samples of their own, and their shares.
    """

    name: str
    cpu: float
    wall: float
    samples: int
    shares: dict[str, float]
    functions: list[tuple[str, float]]


def room_of(stack: list[str]) -> str:
    """Find the room of a sample: *stack* is its frames, innermost first."""
    for frame in stack:
        for room, known in ROOMS:
            if re.search(known, frame):
                return room
    return "other"


def stacks_of(samples: str) -> list[list[str]]:
    """Read what faulthandler wrote: a head line a sample, then its frames, innermost first."""
    stacks: list[list[str]] = []
    for line in samples.splitlines():
        if not line.startswith("  "):
            stacks.append([])
        elif stacks:
            stacks[-1].append(line)
    return [stack for stack in stacks if stack]


def shares_of(stacks: list[list[str]]) -> tuple[dict[str, float], list[tuple[str, float]]]:
    """Add up samples, by room and by innermost function."""
    rooms = Counter(map(room_of, stacks))
    functions = Counter(function_of(stack[0]) for stack in stacks)
    total = len(stacks) or 1
    most = [(name, count / total) for name, count in functions.most_common(8)]
    return {room: count / total for room, count in rooms.most_common()}, most


def function_of(frame: str) -> str:
    """Name the function of a frame, with the file it stands in."""
    found = re.fullmatch(r'  File "(.*)", line \S+ in (.*)', frame)
    if found is None:
        return frame.strip()
    return f"{'/'.join(Path(found[1]).parts[-2:])}: {found[2]}"


def profile(name: str, folder: Path, seconds: float = SECONDS) -> Cost | str:
    """Look at one subject for some seconds; return its cost, or why there is none."""
    group, subject = SUBJECTS[name]
    place = folder / "costs" / re.sub(r"\W", "_", name)
    place.mkdir(parents=True)
    words = [sys.executable, "-m", "benchmarks.profiled", group, subject, place, seconds]
    ended = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if ended.returncode:
        return ended.stderr.strip().rpartition("\n")[2]
    told = json.loads(ended.stdout)
    stacks = stacks_of((place / SAMPLES).read_text())
    return Cost(name, told["cpu"], told["wall"], len(stacks), *shares_of(stacks))


def profiles(folder: Path, say: Say) -> list[Cost | str]:
    """Look at every subject."""
    found: list[Cost | str] = []
    for name in SUBJECTS:
        say(f"costs: {name}")
        cost = profile(name, folder)
        found.append(f"{name}: {cost}" if isinstance(cost, str) else cost)
    return found


ABOUT = """\
Shares of the CPU that the calling process uses, by room, sampled every 4 ms of use; a sample counts for
the innermost room in which it was, kernel and C code included. What PostgreSQL's own processes use, and
waiting for a disk or a lock, is not in the shares; it is the distance between CPU and time."""


def table(found: list[Cost | str]) -> list[str]:
    """Write the shares as a Markdown table, and what could not be looked at."""
    costs = [cost for cost in found if isinstance(cost, Cost)]
    reasons = [f"- left out: {reason}" for reason in found if isinstance(reason, str)]
    if not costs:
        return reasons
    head = ["of the CPU of its process", *(cost.name for cost in costs)]
    rooms = sorted(
        {room for cost in costs for room in cost.shares}, key=lambda r: -costs_of(costs, r)
    )
    rows = [
        ["CPU a step", *(duration(cost.cpu) for cost in costs)],
        ["time a step, all callers together", *(duration(cost.wall) for cost in costs)],
        ["samples", *(str(cost.samples) for cost in costs)],
        *([room, *(f"{cost.shares.get(room, 0):.0%}" for cost in costs)] for room in rooms),
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return [*lines, "", *map(most, costs), *reasons]


def costs_of(costs: list[Cost], room: str) -> float:
    """How much a room takes of all subjects together."""
    return sum(cost.shares.get(room, 0) for cost in costs)


def most(cost: Cost) -> str:
    """Name the functions that a subject spends most in."""
    named = ", ".join(f"`{name}` {share:.0%}" for name, share in cost.functions)
    return f"- {cost.name}, most in: {named}."
