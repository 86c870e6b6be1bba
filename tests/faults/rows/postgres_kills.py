"""F1 on PostgreSQL: SIGKILL at named places of the guarded call, down to single statements."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from tests.faults.forms import places
from tests.faults.matrix import Count, Result
from tests.faults.processes import ask
from tests.faults.test_kills import EVERY, Cases, Variant, is_as_promised
from tests.postgres.home import MEMORY
from tests.postgres.server import Server

SHORT = [
    Variant("plain"),
    Variant("plain", is_async=True, hook=True),
    Variant("approved", hook=True),
    Variant("doubted", is_async=True),
    Variant("ruled", first_death="effect done"),
    Variant("plain", fresh=True),
]
STEP = 3
"""The short form tries each third place."""


def killed(long: bool, seed: int) -> Result:
    """Kill a worker at each place that can be told apart, and let another do the story again."""
    count = Count("F1", "postgres", seed)
    return kill(count, EVERY if long else SHORT, is_as_promised, short=STEP)


def kill(
    count: Count,
    variants: Sequence[Variant],
    promised: Callable[[Variant, dict[str, Any]], bool],
    *,
    short: int,
) -> Result:
    """Tell each story with a worker that dies; the short form tries one of so many places."""
    with Server() as server:
        for number, variant in enumerate(variants):
            for case in cases(server, variant, **places((count.seed, number), short)):
                wrong = [] if promised(variant, case) else [f"wrong: it ended as {case}"]
                count.add(case["problems"] + wrong, place=f"{variant}, {case['point']}")
    return count.result(f"{len(variants)} stories; the client's process dies, the server's goes on")


def cases(server: Server, variant: Variant, **step: int) -> Cases:
    """Play a story in a database of its own, and kill its worker at one place after the other."""
    home = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=home, prefix="agentguard-") as folder:
        plan = {"folder": folder, "server": server.url(server.new_database()), **step}
        found: Cases = ask("zygote", json.dumps({**dataclasses.asdict(variant), **plan}))
    return found
