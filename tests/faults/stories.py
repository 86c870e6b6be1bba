"""Stories: what a worker does from its start to its end, told so that it can be told again.

A worker that is killed is started anew and does all of it once more, as workers do.
"""

from __future__ import annotations

import contextlib
import inspect
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

from agentguard import (
    Guard,
    GuardError,
    Happened,
    NoEffect,
    NotHappened,
    Retry,
    budget,
    compensated_by,
    config,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from tests.faults.probes import Points
from tests.faults.world import World

RUN = "r-1"


@dataclass
class Worker:
    """A process with a guard, a tool that pays, and its memory of how the calls ended."""

    world: World
    is_async: bool
    hook: bool
    points: Points = field(default_factory=Points)
    ends: dict[str, str] = field(default_factory=dict)
    guard: Guard = field(init=False)

    def open(self) -> None:
        """Open the store, as the first thing a process does."""
        self.guard = Guard(self.world.url)

    @contextlib.asynccontextmanager
    async def run(self, **options: Any) -> AsyncIterator[None]:
        """Enter the run, or enter it again."""
        run = self.guard.run("story", run_id=RUN, max_spend_usd="5", max_steps=50, **options)
        if self.is_async:
            async with run:
                yield
        else:
            with run:
                yield

    async def call(self, tool: Callable[[str], Any], name: str) -> None:
        """Call a tool; remember how it ended, and tell the world of a success."""
        try:
            result = tool(name)
            if inspect.isawaitable(result):
                result = await result
        except GuardError as error:
            self.ends[name] = error.kind
            return
        self.points.reach("before the caller acts on the result")
        if name.startswith("T-"):
            self.world.tell(name, result)
        self.ends[name] = "success"

    def tool(
        self, body: Callable[[str], str], *policies: Any, effect: str = "write", **contract: Any
    ) -> Any:
        """Decorate *body* as a sync or an async tool."""
        if self.is_async:

            async def pay(ticket: str) -> str:
                return body(ticket)
        else:

            def pay(ticket: str) -> str:  # type: ignore[misc]
                return body(ticket)

        tool: Any = pay
        for policy in (
            tool_contract(effect=effect, retry=Retry(wait=0), **contract),  # type: ignore[arg-type]
            *policies,
        ):
            tool = policy(tool)
        return tool

    def payer(self, body: Callable[[str], str], *policies: Any, **contract: Any) -> Any:
        """Make the tool that pays, with a key, a budget, and the hook if this worker has one."""
        key = idempotent(key="pay:{ticket}", reconcile=self.look if self.hook else None)
        money = budget(cost=Decimal("0.30"), max_calls=9, max_spend_usd="3")
        return self.tool(body, key, money, *policies, **contract)

    def act(self, ticket: str) -> str:
        """Pay: the effect that must not happen twice."""
        self.points.reach("body entered")
        self.world.act(ticket, current_run().call.idempotency_key)
        self.points.reach("effect done")
        return f"paid-{secrets.token_hex(4)}"

    def read(self, ticket: str) -> str:
        """Read something."""
        self.world.look()
        return ticket

    def take_back(self, _result: str, ticket: str) -> None:
        """Undo a payment: an effect that must not happen twice either."""
        self.points.reach("undo entered")
        self.world.act(f"undo-{ticket}", current_run().call.idempotency_key)
        self.points.reach("undo done")

    def look(self, call: Any) -> Happened | NotHappened:
        """Answer the question whether it happened, by looking."""
        self.points.reach("hook asked")
        ticket = call.arguments["ticket"]
        done = self.world.effects()[ticket]
        return Happened("paid, as the hook found out") if done else NotHappened()


async def plain(worker: Worker) -> None:
    """A read, then a write."""
    worker.open()
    look = worker.tool(worker.read, effect="read")
    pay = worker.payer(worker.act)
    async with worker.run():
        await worker.call(look, "a-read")
        await worker.call(pay, "T-1")


async def retried(worker: Worker) -> None:
    """A write that says at its first try that nothing happened, and succeeds at its second."""

    def act(ticket: str) -> str:
        if current_run().call.attempt == 1:
            raise NoEffect("busy")
        return worker.act(ticket)

    worker.open()
    pay = worker.payer(act)
    async with worker.run():
        await worker.call(pay, "T-1")


async def doubted(worker: Worker) -> None:
    """A write that acts, then fails in a way that tells nothing."""

    def act(ticket: str) -> str:
        worker.act(ticket)
        raise RuntimeError("connection reset")

    worker.open()
    pay = worker.payer(act)
    async with worker.run():
        await worker.call(pay, "T-1")


async def approved(worker: Worker) -> None:
    """Two writes wait for a person, who says yes to one and no to the other."""
    worker.open()
    pay = worker.payer(worker.act, requires_approval())
    for _ in range(2):
        async with worker.run():
            await worker.call(pay, "T-1")
            await worker.call(pay, "denied")
        for waiting in worker.guard.approvals.list("pending"):
            said = "approve" if waiting.arguments["ticket"] == "T-1" else "reject"
            worker.guard.approvals.decide(waiting.id, said, by="dana", reason="as it should be")
            worker.points.reach("after a person's word")


async def ruled(worker: Worker) -> None:
    """Somebody looks at what is in doubt, says what is true, and the worker goes on."""
    await plain(worker)
    for effect in worker.guard.effects.list(state="in_doubt"):
        ruling = "happened" if worker.world.effects()["T-1"] else "not_happened"
        worker.guard.effects.resolve(effect.id, ruling, by="dana", reason="looked", result="paid")
        worker.points.reach("after a person's ruling")
    await plain(worker)


async def verified(worker: Worker) -> None:
    """A write that is looked at before and after, and confirmed by what was seen."""

    def seen(arguments: Any) -> int:
        worker.points.reach("world looked at")
        return worker.world.effects()[arguments["ticket"]]

    def right(_arguments: Any, _result: Any, evidence: Any) -> bool:
        worker.points.reach("verifier asked")
        return bool(evidence.after == 1)

    worker.open()
    pay = worker.payer(worker.act, verified_by(right), evidence=seen)
    async with worker.run():
        await worker.call(pay, "T-1")


async def unconfirmed(worker: Worker) -> None:
    """A write whose verifier is down."""

    def down(_arguments: Any, _result: Any) -> bool:
        worker.points.reach("verifier asked")
        raise ConnectionError("the model is not there")

    worker.open()
    pay = worker.payer(worker.act, verified_by(down))
    async with worker.run():
        await worker.call(pay, "T-1")


async def refuted(worker: Worker) -> None:
    """Two writes, of which a verifier does not confirm the second, so that it is undone."""
    worker.open()
    verified = verified_by(lambda arguments, _result: arguments["ticket"] != "T-1")
    pay = worker.payer(worker.act, verified, compensated_by(worker.take_back))
    async with worker.run():
        await worker.call(pay, "T-0")
        await worker.call(pay, "T-1")
    doubts = {effect.tool for effect in worker.guard.effects.list("in_doubt")}
    worker.ends["T-1"] += ", undo in doubt" if "pay.undo" in doubts else ""


async def kept(worker: Worker) -> None:
    """A write is not confirmed, and a person says no to its undo."""
    worker.open()

    def take_back(_result: str, ticket: str) -> None:
        worker.world.act("denied", f"the undo of {ticket}")

    verified = verified_by(lambda _arguments, _result: False)
    pay = worker.payer(worker.act, verified, compensated_by(take_back, approval=True))
    for _ in range(2):
        async with worker.run():
            await worker.call(pay, "T-1")
        for waiting in worker.guard.approvals.list("pending"):
            worker.guard.approvals.decide(waiting.id, "reject", by="dana", reason="keep it")
            worker.points.reach("after a person's word")


async def rolled_back(worker: Worker) -> None:
    """Three writes; a person rules on what is in doubt, by looking, and has all of them undone."""
    worker.open()
    pay = worker.payer(worker.act, compensated_by(worker.take_back))
    async with worker.run():
        for ticket in ("T-1", "T-2", "T-3"):
            await worker.call(pay, ticket)
    for effect in worker.guard.effects.list(state="in_doubt"):
        ruling = "happened" if effect.id in worker.world.names() else "not_happened"
        worker.guard.effects.resolve(effect.id, ruling, by="dana", reason="looked", result="paid")
        worker.points.reach("after a person's ruling")
    wish: dict[str, Any] = {"tools": [pay], "by": "dana", "reason": "the wrong customer"}
    if worker.is_async:
        found = await worker.guard.arollback(RUN, **wish)
    else:
        found = worker.guard.rollback(RUN, **wish)
    stopped = found.stopped.what if found.stopped else "rolled back"
    worker.ends["T-1"] = stopped if len(found.effects) else "nothing to undo"


async def planned(worker: Worker) -> None:
    """A plan of one write and no other; every worker sets it, and tries a second write."""
    worker.open()
    pay = worker.payer(worker.act)
    async with worker.run():
        if worker.is_async:
            await current_run().aplan([{"tool": "pay"}], outside="refuse")
        else:
            current_run().plan([{"tool": "pay"}], outside="refuse")
        await worker.call(pay, "T-1")
        await worker.call(pay, "denied")


async def drafted(worker: Worker) -> None:
    """Two writes are drafted; a person executes the one that was approved, and tries the other."""
    worker.open()
    pay, approvals = worker.payer(worker.act), worker.guard.approvals
    async with worker.run(autonomy="draft"):
        await worker.call(pay, "T-1")
        await worker.call(pay, "denied")
    for waiting in approvals.list("pending"):
        if waiting.arguments["ticket"] == "T-1":
            approvals.decide(waiting.id, "approve", by="dana")
            worker.points.reach("after a person's word")
    execute = approvals.aexecute if worker.is_async else approvals.execute
    for draft in approvals.list():
        run = partial(execute, draft.id, by="dana", tools=[pay])
        await worker.call(lambda _, run=run: run(), draft.arguments["ticket"])  # type: ignore[misc]


async def earned(worker: Worker) -> None:
    """Three verified writes, of which the third takes their tool down."""
    settings = config.loads("agent_run: {autonomy: {demote: {to: propose}}}\n")
    worker.guard = Guard(worker.world.url, config=settings)
    confirmed = verified_by(lambda arguments, _result: arguments["ticket"] != "refuted")
    pay = worker.payer(worker.act, confirmed)
    async with worker.run():
        await worker.call(pay, "T-1")
        await worker.call(pay, "T-2")
        await worker.call(pay, "refuted")


BURNT = """\
agent_run:
  slos:
    pays: {tool: pay, target: 0.9, last: 20, min: 1, demote: {burning: approve, exhausted: approve,
      restore: {good: 99}}}
"""


async def burnt(worker: Worker) -> None:
    """Three writes, of which the second is refused and takes autonomy away: the third waits."""

    def act(ticket: str) -> str:
        if ticket == "refused":
            raise NoEffect("no funds", retryable=False)
        return worker.act(ticket)

    worker.guard = Guard(worker.world.url, config=config.loads(BURNT))
    pay = worker.payer(act)
    async with worker.run():
        for name in ("T-1", "refused", "T-2"):
            with contextlib.suppress(NoEffect):
                await worker.call(pay, name)
            for waiting in worker.guard.approvals.list("pending"):
                worker.guard.approvals.decide(waiting.id, "approve", by="dana", reason="looked")
                worker.points.reach("after a person's word")
                with contextlib.suppress(NoEffect):
                    await worker.call(pay, name)


Story = Callable[[Worker], Coroutine[Any, Any, None]]
STORIES: dict[str, Story] = {
    story.__name__: story
    for story in (
        plain,
        retried,
        doubted,
        approved,
        ruled,
        verified,
        unconfirmed,
        refuted,
        kept,
        rolled_back,
        planned,
        drafted,
        earned,
        burnt,
    )
}
