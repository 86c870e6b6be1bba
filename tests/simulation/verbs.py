"""A delivered call by the ledger's verbs alone: as short as it can be, so that very many fit in."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from agentguard.errors import GuardError, StoreUnavailable
from agentguard.ledger import effects, settling
from agentguard.ledger.rows import load_effect
from agentguard.ledger.values import (
    Ask,
    Busy,
    Doubt,
    Edited,
    Intent,
    Interrupted,
    Replay,
    Reservation,
    RunRef,
    Settlement,
    Started,
)
from agentguard.model import EffectState
from tests.simulation.disk import SECOND, Disk, Process, SimulatedStore
from tests.simulation.places import HOOK_SAID_NO, IN_BODY, Nap
from tests.simulation.world import POOL, POOLED, TENANT, WINDOW, Body

if TYPE_CHECKING:
    from tests.simulation.schedule import Order, Schedule

COST = 7
TRIES = 5
ENDS = (
    *("returned",) * 14, *("no effect",) * 2, "no effect, for good", "unclear, happened",
    "unclear, did not happen", "unclear, did not happen",
)  # fmt: skip
"""How a body ends."""
Steps = Generator[Any, Any, Any]


def ref(run: str) -> RunRef:
    """Say who acts in *run*."""
    return RunRef(TENANT, run, "agent:bot")


class Delivery:
    """One delivery of a call to one process."""

    def __init__(self, schedule: Schedule, process: Process, order: Order, run: str) -> None:
        self.schedule, self.process, self.order, self.run = schedule, process, order, run
        self.world, self.random = schedule.world, schedule.random
        self.store: SimulatedStore = schedule.store(process)
        self.edits: Any = None
        self.claim, self.asked_at, self.ref = "", 0.0, ref(run)

    def steps(self) -> Steps:
        """Begin until there is an answer that ends the call."""
        try:
            yield "before the start"
            known = self.store.read(load_effect, TENANT, self.order.key)
            if known is not None and known.state in effects.FINAL:
                self.replayed(known)
                return
            for _ in range(TRIES):
                answer = self.begin()
                yield type(answer).__name__
                wait = yield from self.answered(answer)
                if wait is None:
                    return
                yield Nap(wait)
        except StoreUnavailable:
            return  # the caller is told so, and may come again

    def replayed(self, known: Any) -> None:
        """Tell the caller of the recorded end."""
        if known.state is EffectState.SUCCEEDED:
            self.world.tell(self.order.key, known.result)

    def begin(self) -> Any:
        """Ask to start; a start of which nobody knows whether it was made is let go of."""
        self.asked_at = self.store.awake()
        self.claim = f"{self.process.name}-{self.schedule.time.true}"
        try:
            return self.store.transact(effects.begin, self.intent())[0]
        except StoreUnavailable as error:
            if error.uncertain:
                self.keep_trying(settling.abandon, self.lost(began=self.order.dedupes))
            raise

    def intent(self) -> Intent:
        """Say what is asked for."""
        order = self.order
        pool = (Reservation("pool", "all", "pool", POOL, None, COST),)
        return Intent(
            run=self.ref, key=order.key, scope="tenant", tool=order.tool, effect="write",
            contract_version="1", policy_version="1", payload_hash="p", claim_id=self.claim,
            rule="", arguments={"amount": 9},
            ask=Ask("always", quorum=order.quorum, expires=3600, allow_edit=True)
            if order.tool == "asked" else None,
            call_id="c", cost=COST,
            reservations=pool if order.tool == POOLED else (),
            lease_us=10 * SECOND if order.tool == "threaded" else 0,
            dedupe_us=WINDOW if order.dedupes else None, agent="bot", edits=self.edits,
        )  # fmt: skip

    def lost(self, *, began: bool) -> Interrupted:
        """Say what is known of a start whose caller is gone."""
        return Interrupted(self.ref, self.order.key, self.claim, None, began, may_act=False)

    def abandon(self, *, began: bool) -> None:
        """Write down that nobody waits for the end any more."""
        try:
            self.store.transact(settling.abandon, self.lost(began=began))
        except StoreUnavailable:
            self.keep_trying(settling.abandon, self.lost(began=began))

    def keep_trying(self, verb: Any, what: Any) -> None:
        """Have something written as soon as the store takes it, by a thread of this process."""

        def work() -> Steps:
            while True:
                yield f"tries to {verb.__name__}"
                try:
                    return self.store.transact(verb, what)
                except StoreUnavailable:
                    continue

        self.schedule.spawn(self.process, work(), self.order, f"has {verb.__name__} to write")

    def answered(self, answer: Any) -> Steps:
        """Do what the ledger's answer asks for; return after how long to begin again, if at all."""
        if isinstance(answer, Started):
            return 0 if (yield from self.execute(answer)) else None
        if isinstance(answer, Doubt):
            return 0 if (yield from self.reconcile(answer)) else 40 * SECOND
        if isinstance(answer, Replay):
            self.replayed(answer.effect)
        if isinstance(answer, Edited):
            self.edits = answer.approval.edits
            return 0
        return 5 * SECOND if isinstance(answer, Busy) else None

    def execute(self, started: Started) -> Steps:
        """Run the body under its fence, if there is time left for that."""
        if not self.store.may_begin(self.asked_at):
            self.abandon(began=self.order.dedupes)
            return False
        self.world.begun.add((self.order.key, started.fence))
        body = Body(self.order.key, started.fence, self.order.dedupes, started.edits)
        if self.order.tool == "threaded":
            return (yield from self.wait(body, started))
        end = yield from self.work(body)
        if self.random.random() < 0.02:  # Ctrl-C, before anybody knows the end
            self.abandon(began=True)
            return False
        yield end
        return self.settle(started, end)

    def work(self, body: Body) -> Steps:
        """Do what the tool does."""
        yield IN_BODY
        end = self.random.choice(ENDS)
        if end in ("returned", "unclear, happened"):
            self.world.act(body)
        yield "in the body, after the effect"
        return end

    def wait(self, body: Body, started: Started) -> Steps:
        """Wait for a body in a thread, and not for ever: it may answer later."""
        ends: list[str] = []
        late = False

        def thread() -> Steps:
            ends.append((yield from self.work(body)))
            if late:
                try:
                    self.settle(started, ends[0])
                except StoreUnavailable:
                    return

        self.schedule.spawn(self.process, thread(), self.order, "has a thread at work")
        for _ in range(4):
            yield "waits for its thread"
            if ends:
                return self.settle(started, ends[0])
        late = True
        self.settle(started, "timeout")
        return False

    def settle(self, started: Started, end: str) -> bool:
        """Write how the body ended, and tell the caller; return whether to try again."""
        if started.repeat and end.startswith("no effect"):
            end = "unclear, for this was a repeat"
        state = {
            "returned": EffectState.SUCCEEDED, "no effect": EffectState.FAILED_RETRYABLE,
            "no effect, for good": EffectState.FAILED_FINAL,
        }.get(end, EffectState.IN_DOUBT)  # fmt: skip
        done = f"done {self.order.key}" if state is EffectState.SUCCEEDED else None
        settlement = Settlement(
            self.ref, self.order.key, started.fence, started.step, state,
            {"body_ended": False} if end == "timeout" else {}, done,
            "stored" if done else None, doubt_reason=end if "unclear" in end else None,
            row=started.row,
        )  # fmt: skip
        try:
            settled = self.store.transact(settling.settle, settlement)
        except StoreUnavailable:
            self.keep_trying(settling.settle, settlement)
            return False
        if settled.written and done:
            self.world.tell(self.order.key, done)
        return state is EffectState.FAILED_RETRYABLE

    def reconcile(self, doubt: Doubt) -> Steps:
        """Ask the tool's hook, which sees what has happened by now, and write down its answer."""
        if not self.order.hooked:
            return False
        happened = self.world.look(self.process, self.order.key, doubt.effect.fence)
        if doubt.may_act and not happened:
            return False
        ruling = "happened" if happened else "not_happened"
        yield "the hook says: happened" if happened else HOOK_SAID_NO
        done = f"done {self.order.key}" if happened else None
        ruled = self.store.transact(
            settling.resolve, TENANT, self.order.key, ruling, "reconcile", "", done,
            doubt.effect.fence,
        )  # fmt: skip
        return not isinstance(ruled, GuardError)


class Verbs:
    """Deliveries by the ledger's verbs."""

    can_be_cancelled = False

    def __init__(self, _disk: Disk) -> None:
        pass

    def row(self, order: Order) -> str:
        """Return the key of an order's effect in the store."""
        return order.key

    def kept(self, order: Order) -> str:
        """Return the result of an order as the store keeps it."""
        return f"done {order.key}"

    def __call__(self, schedule: Schedule, process: Process, order: Order, run: str) -> Steps:
        """Return the steps of one delivery."""
        return Delivery(schedule, process, order, run).steps()

    def installed(self) -> contextlib.AbstractContextManager[None]:
        """Nothing has to be put anywhere."""
        return contextlib.nullcontext()
