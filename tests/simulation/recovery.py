"""The end of a schedule: nothing breaks any more, and everybody who can does their part."""

from __future__ import annotations

from agentguard.ledger import settling
from agentguard.ledger.rows import load_effect
from tests.simulation.disk import LEASE, QUARANTINE, SECOND, Process
from tests.simulation.faults import lift, rule_on, vote
from tests.simulation.schedule import RUNS, Order, Schedule
from tests.simulation.world import TENANT

TRIES = 4
FINAL = ("succeeded", "failed_final", "denied")


def recover(schedule: Schedule) -> None:
    """Let everybody finish, then bring every order to an end, as new processes and people do."""
    schedule.quiet = True
    _finish(schedule)
    lift(schedule)
    schedule.pass_time(schedule.time.true + LEASE + QUARANTINE + SECOND)
    schedule.time.ahead = max(schedule.time.ahead, 0)  # a clock that was set back is set right
    schedule.tell("recovery")
    heirs = [schedule.machines.start(host) for host in schedule.hosts]
    for heir in heirs:
        schedule.store(heir).transact(settling.sweep)
    schedule.pass_time(schedule.time.true + QUARANTINE + SECOND)
    for order in schedule.orders:
        _bring_to_an_end(schedule, heirs[-1], order)


def _finish(schedule: Schedule) -> None:
    """Who stood still wakes up and finishes; one of them may die instead."""
    asleep = [
        process
        for process in schedule.machines.processes.values()
        if process.alive and process.wakes > schedule.time.true
    ]
    if asleep and schedule.random.random() < 0.3:
        schedule.kill(schedule.random.choice(asleep))
    _go_on(schedule)


def _go_on(schedule: Schedule) -> None:
    while schedule.tasks:
        schedule.go_on()


def _bring_to_an_end(schedule: Schedule, heir: Process, order: Order) -> None:
    """Deliver the call once more, and do what people do for it, until it has an end."""
    key = schedule.deliver.row(order)
    for _ in range(TRIES):
        row = schedule.store(heir).read(load_effect, TENANT, key)
        state = "" if row is None else str(row.state)
        if state in FINAL:
            return
        if state == "in_doubt" and not order.hooked:
            rule_on(schedule, key)
        if state == "awaiting_approval":
            _approve(schedule, key)
        schedule.start(heir, order, RUNS[0] if row is None else row.run_id)
        _go_on(schedule)


def _approve(schedule: Schedule, key: str) -> None:
    for (name,) in schedule.world.disk.rows(
        "SELECT approval_id FROM approvals WHERE status = 'pending' AND key = ?", key
    ):
        for person in ("lee", "kim", "ann"):
            vote(schedule, name, key, "approve", person)
