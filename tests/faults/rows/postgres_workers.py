"""F8, F12, F13 on PostgreSQL: crowds of workers, killed and stopped while they work."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.faults.fleet import Fleet, database_of_world, make, world_on
from tests.faults.matrix import Count, Result
from tests.postgres.home import until
from tests.postgres.server import Server

LEASE = 2
"""Seconds; the quarantine is as long."""


def crowd(long: bool, seed: int) -> Result:
    """Let eight workers do the same list at the same time."""
    count = Count("F8", "postgres", seed)
    for round_ in range(10 if long else 1):
        with Server() as server, world_on(server) as world:
            count.add(Fleet(world, 8, seed + round_, tickets=150).finish(), points=8 * 150)
    return count.result("each of 8 processes asks for each of 150 effects")


def killed(long: bool, seed: int) -> Result:
    """Kill workers wherever they are."""
    count = Count("F12", "postgres", seed)
    tickets = 2000 if long else 150
    with (
        Server() as server,
        world_on(server) as world,
        Fleet(world, 4, seed, tickets=tickets, body_ms=2) as fleet,
    ):
        kills = fleet.at_progress([fleet.kill_one] * (300 if long else 20))
        count.add(fleet.finish(), points=kills)
    return count.result("at random moments; another worker takes the place of each")


def paused(long: bool, seed: int) -> Result:
    """Stop workers until others have long taken them for lost, then let them act."""
    count = Count("F13", "postgres", seed)
    with Server() as server:
        for round_ in range(10 if long else 1):
            make({
                "in their bodies": lambda: in_their_bodies(count, server, seed + round_),  # noqa: B023
                "before their bodies": lambda: before_their_bodies(count, server, seed + round_),  # noqa: B023
                "strange clock": lambda: strange_clock(count, server, seed + round_),  # noqa: B023
            })  # fmt: skip
    return count.result(
        f"lease {LEASE} s; others cannot see their locks, and ask a hook that says that nothing has"
        " happened; one host has a wrong clock"
    )


def in_their_bodies(count: Count, server: Server, seed: int) -> None:
    """Stop six workers, let two others find them lost, and let the six go on in their quarantine."""
    with (
        world_on(server, options=f"?lease={LEASE}s") as world,
        Fleet(world, 6, seed, tickets=40, apart=True, stops_in=1) as fleet,
    ):
        until(lambda: all(map(is_stopped, fleet.workers)), "workers to stop in their bodies")
        waiting = set(fleet.workers)
        for _ in range(2):
            fleet.start(stops_in=0)

        def let_go_on() -> bool:
            lost = {row["pid"] for row in server.query(_LOST, database=database_of_world(world))}
            all_is_done = len(world.effects()) == 40  # nobody has waited for the six
            for worker in waiting & (waiting if all_is_done else lost):
                waiting.remove(worker)
                os.kill(worker, signal.SIGCONT)
            return not waiting

        until(let_go_on, "others to find them lost, and to ask their hook for half of a quarantine")
        count.add(fleet.finish(), points=6)


_LOST = f"""
    SELECT pid FROM agentguard.effects JOIN agentguard.owners USING (owner)
    WHERE doubt_reason = 'owner_lost'
    AND finished_at < extract(epoch FROM clock_timestamp() - interval '{LEASE / 2} s') * 1000000
"""


def before_their_bodies(count: Count, server: Server, seed: int) -> None:
    """Stop three workers after their starts; when others have done it all, wake them up."""
    with (
        world_on(server, options="?lease=1s") as world,
        Fleet(world, 3, seed, tickets=12, apart=True, stops_in=1, early=True) as fleet,
    ):
        until(lambda: all(map(is_stopped, fleet.workers)), "workers to stop before their bodies")
        sleepers = list(fleet.workers)
        for _ in range(2):
            fleet.start(stops_in=0)
        until(lambda: len(world.told()) == 12, "others to do what the sleepers had started")
        for worker in sleepers:
            os.kill(worker, signal.SIGCONT)
        count.add(fleet.finish(), points=3)


def is_stopped(worker: int) -> bool:
    """Tell whether a process is stopped."""
    return Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def strange_clock(count: Count, server: Server, seed: int) -> None:
    """Let a host whose clock is a day ahead, and one that is a day behind, work with three others."""
    with world_on(server) as world:
        with Fleet(world, 3, seed, tickets=40, apart=True, body_ms=20) as fleet:
            for ahead in (-86_400, 86_400):
                fleet.start(ahead=ahead)
            count.add(fleet.finish(), points=2)
        sql = "SELECT count(*) AS it FROM agentguard.events WHERE kind = 'effect.in_doubt'"
        (row,) = server.query(sql, database=database_of_world(world))
        if row["it"]:
            count.add([f"wrong: {row['it']} owners were taken for lost and live"], points=0)
