"""A tool and its record in one database: exactly once, and never in doubt, whatever breaks."""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.faults.fleet import Fleet, database_of_world, world_on
from tests.faults.matrix import Count, Result
from tests.faults.world import World
from tests.postgres.proxy import Loss, Proxy
from tests.postgres.server import Server


def exactly_once(long: bool, seed: int) -> Result:
    """Break everything while tools write into the database of their record."""
    count, times = Count("F12", "postgres_same", seed), 20 if long else 1
    with Server() as server, Proxy(server) as proxy, world_on(server, via=proxy) as world:
        name = database_of_world(world)
        server.execute("CREATE TABLE payments (ticket text, key text)", database=name)
        with Fleet(world, 4, seed, tickets=150 * times, hook=False, beside=True) as fleet:

            def terminate() -> None:
                server.terminate_backends(name)

            def crash() -> None:
                server.crash(signal.SIGKILL)
                server.start()

            faults: list[Callable[[], object]] = [fleet.kill_one, terminate, fleet.kill_one, crash]
            kinds = [*Loss] + [None] * (19 * len(Loss))
            proxy.at_commit = lambda: fleet.random.choice(kinds)
            done = fleet.at_progress(faults * 2 * times)

            def look() -> None:
                proxy.lose_nothing()
                take_over(world, server, name)

            count.add(fleet.finish(look), points=done + proxy.losses)
        doubts = server.query(_DOUBTS, database=name)[0]["it"]
        if doubts:
            count.add([f"wrong: {doubts} doubts, where there can be none"], points=0)
    return count.result("kills, terminated backends, crashes, and one COMMIT in twenty lost")


_DOUBTS = "SELECT count(*) AS it FROM agentguard.events WHERE kind = 'effect.in_doubt'"


def take_over(world: World, server: Server, name: str) -> None:
    """Let the world know what has happened: what is in the table, once for each row."""
    for row in server.query("SELECT ticket, key FROM payments", database=name):
        world.act(row["ticket"], row["key"])
