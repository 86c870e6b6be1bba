"""One workflow run inside its guarded run: entered, left while it only waits, closed when it ends."""

# The engine is typed, but pyright misses its marker below the top.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workflows.errors import WorkflowCancelledByUser
from workflows.events import HumanResponseEvent, InputRequiredEvent, WorkflowFailedEvent
from workflows.runtime.types.results import AddWaiter
from workflows.runtime.types.ticks import (
    TickAddEvent,
    TickIdleCheck,
    TickSessionStart,
    TickStepResult,
    TickWaiterTimeout,
    TickWakeup,
)

from agentguard import GuardError
from agentguard.hosting import hand_over, question

from ._host import approval_of, requirements
from .events import ApprovalDecided

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping

    from workflows.runtime.types.internal_state import BrokerState
    from workflows.runtime.types.plugin import InternalRunAdapter

    from agentguard.hosting import Run

_WORK = (TickAddEvent, TickWaiterTimeout, TickWakeup)
"""What makes an idle workflow work again."""
_FIRST_LOOK, _LONGEST_LOOK = 0.02, 1.0
_HOW = (
    "Send HumanResponseEvent with the fields of `resume` to the handler's context, or: agentguard"
    " approvals approve {id} --by NAME. A running workflow goes on by itself, a saved one when its"
    " context is restored and run."
)


@dataclass(slots=True, eq=False)
class Session:
    """What happens to the guarded run while its workflow runs.

    Attributes:
        owned: whether it was entered for this workflow, or is that of the code around it.
        adapter: the runtime's side of the workflow, once it runs.
        asked: the approvals that steps wait for, with what was last asked about each.
        left: whether the run is left because nothing but an answer from outside can go on.
    """

    run: Run
    owned: bool
    adapter: InternalRunAdapter | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    left: bool = False
    resumed: bool = False
    watching: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def starting(self) -> Generator[None]:
        """Enter the run; leave it at once if the workflow cannot start."""
        if not self.owned:
            yield
            return
        self.run.__enter__()
        try:
            yield
        except BaseException as error:
            self.run.__exit__(type(error), error, None)
            raise

    def restore(self, state: BrokerState) -> None:
        """Take up the waiters that a restored context brings along."""
        self.resumed = state.is_running
        for worker in state.workers.values():
            for waiter in worker.collected_waiters:
                if approval_id := approval_of(waiter.waiter_id):
                    # Saved contexts do not hold it. Without it, the step would be executed now
                    # and once more when somebody has decided, or by another step's event.
                    waiter.requirements = requirements(approval_id)
                    if waiter.resolved_event is None:
                        self.asked[approval_id] = None

    async def ticked(self, tick: Any) -> None:
        """Follow what the workflow does; the runtime waits for this before it goes on."""
        if self.resumed and self.adapter and isinstance(tick, TickSessionStart):
            await self.adapter.send_event(TickIdleCheck())  # LlamaIndex does not ask by itself
        if self.left and isinstance(tick, _WORK):
            await self._enter_again()
        if isinstance(tick, TickStepResult):
            waiters = [r.waiter_id for r in tick.result if isinstance(r, AddWaiter)]
            new = {approval_id: None for w in waiters if (approval_id := approval_of(w))}
            if new:
                self.asked.update(new)
                await self.look()

    async def _enter_again(self) -> None:
        try:
            await self.run.__aenter__()
        except GuardError as refusal:
            # Whoever reads the stream waits for its last event.
            await self._publish(WorkflowFailedEvent(step_name="agentguard", exception=refusal))
            raise
        self.left = False

    async def idle(self) -> None:
        """Leave the run: its time does not count while people think, and operators see it wait."""
        if self.owned and not self.left and not await self.look():
            self.run.waiting("the workflow waits for an event")
            await self.run.__aexit__(None, None, None)
            self.left = True

    async def take(self, answer: HumanResponseEvent) -> None:
        """Hand an answer to the store, and ask again where it did not decide."""
        tenant = self.run.principal.tenant
        problems = hand_over(self.run.guard, dict(answer.items()), tenant=tenant)
        self.asked = dict.fromkeys(self.asked)
        await self.look(problems)

    async def look(self, problems: Mapping[str, str] | None = None) -> bool:
        """Wake the steps whose approvals are decided, ask about the others if there is news.

        Returns:
            Whether a step was woken.
        """
        woken = False
        for approval_id, asked in list(self.asked.items()):
            approval = self.run.guard.approvals.show(approval_id, tenant=self.run.principal.tenant)
            state = (approval.generation, len(approval.decisions))
            if approval.status != "pending":
                woken = True
                await self._wake(approval_id)
            elif state != asked:
                self.asked[approval_id] = state
                problem = (problems or {}).get(approval_id) or (problems or {}).get("")
                shown = question(approval, problem, how=_HOW.format(id=approval_id))
                await self._publish(InputRequiredEvent(**shown))
        self._watch()
        return woken

    async def _wake(self, approval_id: str) -> None:
        del self.asked[approval_id]  # at once: a second event would execute the step twice
        if self.adapter is not None:
            decided = ApprovalDecided(approval_id=approval_id)
            await self.adapter.send_event(TickAddEvent(event=decided))

    async def _publish(self, event: Any) -> None:
        if self.adapter is not None:
            await self.adapter.write_to_event_stream(event)

    def _watch(self) -> None:
        if self.asked and (self.watching is None or self.watching.done()):
            self.watching = asyncio.create_task(self._watched())

    async def _watched(self) -> None:
        """Look at the store while steps wait: people decide in other processes, too."""
        seconds = _FIRST_LOOK
        while self.asked:
            await asyncio.sleep(seconds)
            seconds = min(seconds * 2, _LONGEST_LOOK)
            with contextlib.suppress(GuardError):  # the store cannot answer now; look again
                await self.look()

    @contextlib.asynccontextmanager
    async def closing(self) -> AsyncGenerator[None]:
        """Close the run as its workflow ends, before whoever waits for the workflow is told."""
        try:
            yield
        except BaseException as error:
            await self._close(error)
            raise
        await self._close(None)

    async def _close(self, error: BaseException | None) -> None:
        if self.watching is not None:
            self.watching.cancel()
        stopped = isinstance(error, (WorkflowCancelledByUser, asyncio.CancelledError))
        if not self.owned or (self.left and (stopped or error is None)):
            return
        if self.left:
            await self.run.__aenter__()
        elif stopped and self.asked:
            self.run.waiting("stopped while a call waits for people")
            error = None
        await self.run.__aexit__(type(error) if error else None, error, None)
