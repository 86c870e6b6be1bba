"""Two hosts with one PostgreSQL: everything that can go wrong between them, one after the other."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

from tests.faults.fleet import database_of_world, world_on
from tests.faults.hosts import Hosts, Spread, two_hosts
from tests.faults.matrix import Count, Result
from tests.faults.rows.postgres_workers import LEASE
from tests.postgres.home import until
from tests.postgres.proxy import Proxy
from tests.postgres.server import Server

LONGER = 1.25 * LEASE
"""Seconds: past the lease, and well within the quarantine, which is as long as the lease again."""


def two(long: bool, seed: int) -> Result:
    """Let two hosts share a list while workers, networks and the server fail."""
    count = Count("F12", "postgres_hosts", seed)
    with two_hosts() as hosts, Server() as primary, Proxy(primary, host=hosts.address) as proxy:
        for round_ in range(10 if long else 1):
            work_on(count, hosts, primary, proxy, seed + round_)
        count.add(fail_over(hosts, primary, proxy, seed))
    where = "in network namespaces" if hosts.networks else "as plain processes: no right to more"
    return count.result(
        f"{where}, no shared lock files, lease {LEASE} s; the last fault a failover"
    )


def work_on(count: Count, hosts: Hosts, server: Server, proxy: Proxy, seed: int) -> None:
    """Do everything but the failover to one list."""
    with world_on(server, via=proxy, options=f"&lease={LEASE}s") as world:
        Spread.hosts, name = hosts, database_of_world(world)
        with Spread(world, 4, seed, tickets=80, body_ms=20) as fleet:

            def stop_one() -> None:
                worker = fleet.random.choice(fleet.workers)
                os.kill(worker, signal.SIGSTOP)
                pass_(LONGER)
                os.kill(worker, signal.SIGCONT)

            def cut_off() -> None:
                hosts.break_network(0)
                pass_(LONGER)
                hosts.mend_network(0)

            def crash() -> None:
                server.crash(signal.SIGKILL)
                server.start()

            faults: list[Callable[[], object]] = [
                fleet.kill_one, stop_one, crash, lambda: server.terminate_backends(name), cut_off,
                fleet.kill_one,
            ]  # fmt: skip
            done = fleet.at_progress(faults)
            count.add(fleet.finish(), points=done)


def pass_(seconds: float) -> None:
    """Let a fault last so long."""
    threading.Event().wait(seconds)


def fail_over(hosts: Hosts, primary: Server, proxy: Proxy, seed: int) -> list[str]:
    """Lose the primary while its synchronous standby hangs, and go on with the standby."""
    with world_on(primary, via=proxy, options=f"&lease={LEASE}s") as world:
        Spread.hosts, name = hosts, database_of_world(world)
        standby = primary.standby(synchronous=True)

        def change_over() -> None:
            standby.stall_receiver()
            until(lambda: primary.waiting_for_standby(name), "a commit to wait for the standby")
            primary.crash(signal.SIGKILL)
            standby.promote()
            proxy.lead_to(standby)

        with Spread(world, 4, seed, tickets=30) as fleet:
            fleet.at_progress([change_over])
            return fleet.finish()
