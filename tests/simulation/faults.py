"""What breaks, and what people do meanwhile: the nemesis of a schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import accumulate

from agentguard.ledger import decisions, settling, switches
from tests.simulation.disk import SECOND
from tests.simulation.places import HOOK_SAID_NO, IN_BODY, SOMETHING_TO_LOSE
from tests.simulation.schedule import RUNS, TOOLS, Order, Schedule
from tests.simulation.world import TENANT

PAUSES = [s * SECOND for s in (1, 10, 20, 40, 70, 90, 120, 120, 200, 300, 5000, 90_000)]
JUMPS = (100 * SECOND, -100 * SECOND, 86_400 * SECOND, -86_400 * SECOND)
PEOPLE = ("dana", "Dana", "DANA ", "lee", "kim", "bot")
"""Some of them are one person, and one of them is the agent that asks."""
DECISIONS = ("approve", "approve", "approve", "approve", "reject", "edit")


def happen(schedule: Schedule) -> None:
    """Let one thing happen: mostly somebody goes on, sometimes something breaks."""
    chance = schedule.random
    if chance.random() < 0.6 and act_at_the_worst_moment(schedule):
        return
    chance.choices(_THINGS, cum_weights=_WEIGHTS)[0](schedule)


def act_at_the_worst_moment(schedule: Schedule) -> bool:
    """A hook has said no and nobody has written that down: whoever is in the body acts now."""
    asked = {task.order.key for task in schedule.tasks if task.place == HOOK_SAID_NO}
    bodies = [t for t in schedule.tasks if t.place == IN_BODY and t.order.key in asked]
    if not bodies:
        return False
    task = schedule.random.choice(bodies)
    task.process.wakes = schedule.time.true
    schedule.step(task)
    if task.process.alive and schedule.random.random() < 0.5:
        schedule.kill(task.process)
    else:
        task.process.wakes = schedule.time.true + 70 * SECOND
    return True


def pause(schedule: Schedule) -> None:
    """Stop a process for a while; rather one that has something to lose."""
    inside = [task for task in schedule.tasks if task.place in SOMETHING_TO_LOSE]
    process = schedule.random.choice(inside or schedule.tasks).process
    pause = schedule.random.choice(PAUSES)
    process.wakes = schedule.time.true + pause
    schedule.tell(process.name, f"stands still for {pause // SECOND} s")


def crash(schedule: Schedule) -> None:
    """Kill a process, a few times in each schedule."""
    if schedule.crashes:
        schedule.crashes -= 1
        schedule.kill(schedule.random.choice(schedule.tasks).process)


def ask_again(schedule: Schedule) -> None:
    """A model asks once more."""
    order = schedule.random.choice(schedule.orders)
    schedule.start(
        schedule.random.choice(schedule.tasks).process, order, schedule.random.choice(RUNS)
    )


def interrupt(schedule: Schedule) -> None:
    """Cancel a delivery that is under way, or press Ctrl-C."""
    begun = [task for task in schedule.tasks if task.run and task.place]
    if begun and schedule.deliver.can_be_cancelled:
        error = schedule.random.choice((asyncio.CancelledError(), KeyboardInterrupt()))
        task = schedule.random.choice(begun)
        schedule.tell(task.process.name, task.order.key, "gets a", type(error).__name__)
        schedule.step(task, error)


def wait(schedule: Schedule) -> None:
    """Time passes."""
    schedule.pass_time(schedule.time.true + schedule.random.choice(PAUSES))
    schedule.tell("time passes")


def jump(schedule: Schedule) -> None:
    """Somebody sets the clock, where clocks may jump."""
    if schedule.jumps:
        schedule.time.jump(schedule.random.choice(JUMPS))
        schedule.tell("the clock is set")


def sweep(schedule: Schedule) -> None:
    """Somebody looks for effects whose owner is lost."""
    schedule.ask("sweeps", settling.sweep)


def rule(schedule: Schedule) -> None:
    """A person looks at the world and rules; what is on its way they cannot see."""
    found = schedule.world.disk.rows(
        "SELECT key FROM effects WHERE state IN ('executing', 'in_doubt') ORDER BY key"
    )
    if found:
        rule_on(schedule, schedule.random.choice(found)[0])


def rule_on(schedule: Schedule, key: str) -> None:
    """Have a person rule on one effect."""
    order, happened = order_of(schedule, key), schedule.world.happened(key)
    ruling = "happened" if happened else "not_happened"
    result = schedule.deliver.kept(order) if happened else None
    words = f"a person says: {order.key} {ruling}"
    schedule.ask(words, settling.resolve, TENANT, key, ruling, "dana", "looked it up", result)


def order_of(schedule: Schedule, key: str) -> Order:
    """Return the order whose effect has this key in the store."""
    return next(order for order in schedule.orders if schedule.deliver.row(order) == key)


def decide(schedule: Schedule) -> None:
    """A person decides on a call that waits."""
    chance = schedule.random
    found = schedule.world.disk.rows(
        "SELECT approval_id, key FROM approvals WHERE status = 'pending' ORDER BY key"
    )
    if found:
        approval_id, key = chance.choice(found)
        vote(schedule, approval_id, key, chance.choice(DECISIONS), chance.choice(PEOPLE))


def vote(schedule: Schedule, approval_id: str, key: str, decision: str, by: str) -> None:
    """Have a person vote."""
    edits = {"amount": schedule.random.randrange(9)} if decision == "edit" else None
    ruling = decisions.Ruling(TENANT, approval_id, decision, by, "because", edits=edits)
    words = f"{by.strip()} says: {decision} {order_of(schedule, key).key}"
    schedule.ask(words, decisions.decide, ruling)


def switch(schedule: Schedule) -> None:
    """Throw a kill switch, or lift those that are thrown."""
    tool = schedule.random.choice(TOOLS)
    if schedule.world.thrown:
        lift(schedule)
    elif schedule.random.random() < 0.5:
        schedule.ask(f"stops the tool {tool}", switches.throw, "tool", tool, "dana", "stop")
    else:
        schedule.ask("stops everything", switches.throw, "all", "", "dana", "stop")


def lift(schedule: Schedule) -> None:
    """Lift all kill switches."""
    for kind, name in sorted(schedule.world.thrown):
        schedule.ask(f"lets {kind} {name} go on", switches.lift, kind, name, "dana")


_CHANCES: dict[Callable[[Schedule], None], float] = {
    Schedule.go_on: 80, pause: 6, crash: 2.5, ask_again: 1.5, interrupt: 1, wait: 1.5, jump: 4,
    decide: 5, sweep: 1, rule: 1, switch: 0.5,
}  # fmt: skip
_THINGS, _WEIGHTS = list(_CHANCES), list(accumulate(_CHANCES.values()))
