"""F10, F11, F14: PostgreSQL cuts its clients off, falls over, and fails over to a standby."""

from __future__ import annotations

import signal

from tests.faults.fleet import Fleet, database_of_world, world_on
from tests.faults.matrix import Count, Result
from tests.postgres.bouncer import Bouncer, bouncer_program
from tests.postgres.home import until
from tests.postgres.proxy import Proxy
from tests.postgres.server import Server


def terminated(long: bool, seed: int) -> Result:
    """Cut off one client after another, whatever it is doing; then those of a pooler."""
    count, times = Count("F10", "postgres", seed), 300 if long else 20
    with Server() as server:
        cut_off(count, server, server, times)
        if bouncer_program() is None:
            return count.result("picked at random; no pgbouncer is installed here")
        with Bouncer(server) as bouncer:
            cut_off(count, server, bouncer, times)
    return count.result("picked at random; the second half behind pgbouncer, transaction mode")


def cut_off(count: Count, server: Server, via: Server | Bouncer, times: int) -> None:
    """Terminate backends picked at random while workers reach their server *via* something."""
    with (
        world_on(server, via=via) as world,
        Fleet(world, 4, count.seed, tickets=max(60, 5 * times)) as fleet,
    ):
        name, ended = database_of_world(world), 0

        def terminate() -> None:
            nonlocal ended
            if pids := server.backends(name):
                ended += server.terminate_backends(name, [fleet.random.choice(pids)])

        fleet.at_progress([terminate] * times)
        count.add(fleet.finish(), points=ended)


def crashed(long: bool, seed: int) -> Result:
    """Crash the server under its workers, and start it again."""
    count = Count("F11", "postgres", seed)
    with (
        Server() as server,
        world_on(server) as world,
        Fleet(world, 4, seed, tickets=1500 if long else 150) as fleet,
    ):

        def crash() -> None:
            server.crash(fleet.random.choice([signal.SIGQUIT, signal.SIGKILL]))
            server.start()

        crashes = fleet.at_progress([crash] * (30 if long else 3))
        count.add(fleet.finish(), points=crashes)
    return count.result("SIGQUIT to the postmaster or SIGKILL to all its processes; recovery")


def failover(long: bool, seed: int) -> Result:
    """Lose the primary while its standby hangs, and go on with the standby."""
    count = Count("F14", "postgres", seed)
    for round_ in range(10 if long else 1):
        count.add(failed_over(seed + round_), points=20)
    twice = asynchronous()
    if twice == 0:
        count.add(["wrong: a failover that loses commits did not show; the oracle is blind"])
    return count.result(
        f"to a synchronous standby; an asynchronous one lost {twice} of 20 starts and their effects"
        " happened twice, which is why agentguard warns of it"
    )


def failed_over(seed: int) -> list[str]:
    """Fail over to a synchronous standby under workers; return what the oracle says."""
    with Server() as primary, Proxy(primary) as proxy, world_on(primary, via=proxy) as world:
        standby, name = primary.standby(synchronous=True), database_of_world(world)

        def fail_over() -> None:
            standby.stall_receiver()
            until(lambda: primary.waiting_for_standby(name), "a commit to wait for the standby")
            primary.crash(signal.SIGKILL)
            standby.promote()
            proxy.lead_to(standby)

        with Fleet(world, 4, seed, tickets=20) as fleet:
            fleet.at_progress([fail_over])
            found = fleet.finish()
        standby.remove()
    return found


def asynchronous() -> int:
    """Fail over to a standby that lagged; return how many effects happened twice."""
    with Server() as primary, Proxy(primary) as proxy, world_on(primary, via=proxy) as world:
        standby = primary.standby()
        Fleet(world, 1, 0, tickets=1).finish()
        position = primary.query("SELECT pg_current_wal_lsn() AS it")[0]["it"]
        sql = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn AS it"
        until(lambda: standby.query(sql, position)[0]["it"], "the standby to have the store")
        standby.stall_receiver()
        Fleet(world, 2, 0, tickets=21).finish()
        primary.crash(signal.SIGKILL)
        standby.promote()
        proxy.lead_to(standby)
        found = Fleet(world, 2, 0, tickets=21).finish()
        standby.remove()
    return sum(problem.startswith("duplicate") for problem in found)
