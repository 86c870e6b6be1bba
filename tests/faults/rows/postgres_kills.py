"""F1 on PostgreSQL: SIGKILL at named places of the guarded call, down to single statements."""

from __future__ import annotations

import dataclasses
import json
import tempfile

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
    count, found = Count("F1", "postgres", seed), 0
    with Server() as server:
        for number, variant in enumerate(EVERY if long else SHORT):
            for case in cases(server, variant, **places((seed, number), STEP)):
                promised = [] if is_as_promised(variant, case) else [f"wrong: it ended as {case}"]
                count.add(case["problems"] + promised, place=f"{variant}, {case['point']}")
            found += 1
    return count.result(f"{found} stories; the client's process dies, the server's goes on")


def cases(server: Server, variant: Variant, **step: int) -> Cases:
    """Play a story in a database of its own, and kill its worker at one place after the other."""
    home = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=home, prefix="agentguard-") as folder:
        plan = {"folder": folder, "server": server.url(server.new_database()), **step}
        found: Cases = ask("zygote", json.dumps({**dataclasses.asdict(variant), **plan}))
    return found
