"""One workflow run inside its guarded run: entered, left while it only waits, closed when it ends."""

# The engine is typed, but pyright misses its marker below the top.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from workflows.errors import WorkflowCancelledByUser
from workflows.events import HumanResponseEvent, InputRequiredEvent, WorkflowFailedEvent
from workflows.runtime.types import ticks
from workflows.runtime.types.results import AddWaiter

from agentguard import GuardError
from agentguard.hosting import hand_over, question

from ._host import approval_of, requirements
from .events import ApprovalDecided

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from types import TracebackType

    from workflows.runtime.types.internal_state import BrokerState

    from agentguard.hosting import Run

KEPT = "agentguard"
"""Where a context keeps which run it belongs to, and how many conversations it has had."""
_WORK = (ticks.TickAddEvent, ticks.TickWaiterTimeout, ticks.TickWakeup)
"""What makes an idle workflow work again."""
_FIRST_LOOK, _LONGEST_LOOK = 0.02, 1.0
_HOW = (
    "Send HumanResponseEvent with the fields of `resume` to the handler's context, or: agentguard"
    " approvals approve {id} --by NAME. A running workflow goes on by itself, a saved one when its"
    " context is restored and run."
)


@dataclass(slots=True, eq=False)
class Session:
    """What happens to the guarded run while its workflow runs; entered around its result.

    Attributes:
        owned: whether the run was entered for this workflow, or is that of the code around it.
        conversation: counts the start events that the context has seen.
        adapter: the runtime's side of the workflow, once it runs.
        asked: the approvals that steps wait for, with what was last asked about each.
        left: whether the run is left because nothing but an event from outside can go on.
    """

    run: Run
    owned: bool
    conversation: int
    adapter: Any = None
    asked: dict[str, Any] = field(default_factory=dict)
    left: bool = False
    watching: asyncio.Task[None] | None = None

    def restore(self, state: BrokerState) -> None:
        """Take up the waiters that a restored context brings along."""
        for waiter in [w for worker in state.workers.values() for w in worker.collected_waiters]:
            if approval_id := approval_of(waiter.waiter_id):
                # Saved contexts do not hold it. Without it, the step would be executed now and
                # once more when somebody has decided, or by an event that is meant for another.
                waiter.requirements = requirements(approval_id)
                if waiter.resolved_event is None:
                    self.asked[approval_id] = None

    async def ticked(self, tick: Any) -> None:
        """Follow what the workflow does; the runtime waits for this before it goes on."""
        if isinstance(tick, ticks.TickSessionStart):
            kept = {"run_id": self.run.id, "conversation": self.conversation}
            with contextlib.suppress(ValueError):  # a state of a type of its own has no room
                await self.adapter.get_state_store(()).set(KEPT, kept)
            await self.adapter.send_event(ticks.TickIdleCheck())  # restored, it may only wait
        elif self.left and isinstance(tick, _WORK):
            await self.run.__aenter__()
            self.left = False
        elif isinstance(tick, ticks.TickStepResult):
            waiters = [r.waiter_id for r in tick.result if isinstance(r, AddWaiter)]
            if new := list(filter(None, map(approval_of, waiters))):
                self.asked.update(dict.fromkeys(new))
                await self.look()

    @contextlib.asynccontextmanager
    async def telling(self) -> AsyncGenerator[None]:
        """See that a refusal, which ends the workflow, also ends the stream that somebody reads."""
        try:
            yield
        except GuardError as refusal:
            last = WorkflowFailedEvent(step_name="agentguard", exception=refusal)
            await self.adapter.write_to_event_stream(last)
            raise

    async def idle(self) -> None:
        """Leave the run: its time does not count while people think, and operators see it wait."""
        if self.owned and not self.left and not await self.look():
            self.run.waiting("the workflow waits for an event")
            await self.run.__aexit__(None, None, None)
            self.left = True

    async def take(self, answer: HumanResponseEvent) -> None:
        """Hand an answer to the store, and ask again where it decided nothing."""
        where = self.run.principal.tenant
        problems = hand_over(self.run.guard, dict(answer.items()), tenant=where)
        for approval_id in self.asked.keys() & problems.keys() or (problems and self.asked):
            self.asked[approval_id] = None
        await self.look(problems)

    async def look(self, problems: Mapping[str, str] | None = None) -> bool:
        """Wake the steps whose approvals are decided, ask about the others if there is news.

        Returns:
            Whether a step was woken.
        """
        woken = False
        known = list(self.asked) if self.adapter else []
        # Another look may have woken a step meanwhile.
        for approval_id in (a for a in known if a in self.asked):
            approval = self.run.guard.approvals.show(approval_id, tenant=self.run.principal.tenant)
            state = (approval.generation, len(approval.decisions))
            if approval.status != "pending":
                woken = True
                del self.asked[approval_id]  # now: a second event would execute the step twice
                decided = ApprovalDecided(approval_id=approval_id)
                await self.adapter.send_event(ticks.TickAddEvent(event=decided))
            elif state != self.asked[approval_id]:
                self.asked[approval_id] = state
                problem = (problems or {}).get(approval_id) or (problems or {}).get("")
                shown = question(approval, problem, how=_HOW.format(id=approval_id))
                await self.adapter.write_to_event_stream(InputRequiredEvent(**shown))
        if self.asked and (self.watching is None or self.watching.done()):
            self.watching = asyncio.create_task(self._watch())
        return woken

    async def _watch(self) -> None:
        """Look at the store while steps wait: people decide in other processes, too."""
        seconds = _FIRST_LOOK
        while self.asked:
            await asyncio.sleep(seconds)
            seconds = min(seconds * 2, _LONGEST_LOOK)
            with contextlib.suppress(GuardError):  # the store cannot answer now; look again
                await self.look()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        """Close the run as its workflow ended, before whoever waits for the workflow is told."""
        if self.watching is not None:
            self.watching.cancel()
        stopped = isinstance(error, (WorkflowCancelledByUser, asyncio.CancelledError))
        if not self.owned or (self.left and (stopped or error is None)):
            return
        if self.left:
            await self.run.__aenter__()
        await self.run.__aexit__(type(error) if error else None, error, None)
