"""The workflow's own runtime; around it, each workflow run enters its guarded run."""

# The engine is typed, but pyright misses its marker below the top.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import contextlib
import contextvars
import uuid
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from workflows.context.state_store import deserialize_state_from_dict
from workflows.events import HumanResponseEvent, WorkflowIdleEvent
from workflows.runtime.runtime_decorators import BaseRuntimeDecorator
from workflows.runtime.types.plugin import ExternalRunAdapter, InternalRunAdapter
from workflows.runtime.types.ticks import TickAddEvent

from agentguard import ConfigurationError, DecisionRefused

from ._host import LlamaIndexHost
from ._place import begin
from ._session import KEPT, Session

if TYPE_CHECKING:
    from agentguard.hosting import Entry

_SESSION = contextvars.ContextVar[Session | None]("agentguard_llamaindex_session", default=None)


class GuardedRuntime(BaseRuntimeDecorator):
    """Runs workflows as the runtime inside does, each inside its guarded run."""

    def __init__(self, decorated: Any, entry: Entry) -> None:
        super().__init__(decorated)
        self._entry = entry

    def run_workflow(self, run_id: str, *given: Any, **more: Any) -> Any:
        """Enter the run, in a context of its own, and start the workflow there."""
        return contextvars.copy_context().run(self._run, run_id, *given, **more)

    def _run(
        self, run_id: str, workflow: Any, init_state: Any, start_event: Any = None,
        serialized_state: Any = None, serializer: Any = None,
    ) -> Any:  # fmt: skip
        session, block = self._session(run_id, start_event, _kept(serialized_state, serializer))
        session.restore(init_state)
        _SESSION.set(session)
        with contextlib.ExitStack() as stack:
            stack.enter_context(block)
            adapter = super().run_workflow(
                self._free(run_id), workflow, init_state, start_event, serialized_state, serializer
            )
            stack.pop_all()  # it has started: the session leaves the run if it is its own
        return _dressed(_Outside, adapter, session)

    def _session(self, run_id: str, start: Any, kept: dict[str, Any]) -> tuple[Session, Any]:
        """Return the session in the run that the context names, or somebody else does; its block.

        Raises:
            ConfigurationError: the workflow goes on, and nothing says in which run.
        """
        entry = replace(self._entry, run_id=str(kept["run_id"])) if kept else self._entry
        host, unnamed = LlamaIndexHost(entry.guard), entry.run_id is None
        run, block = entry.choose(start, host, known=run_id, inside=unnamed)
        if block is run and unnamed and start is None and not self._is_known(run.id):
            raise ConfigurationError(
                "this context was saved in the middle of a run and does not say of which: its state"
                " is of a type of its own; say it, as in workflow.run(ctx=ctx, run_id=...)"
            )
        begin(run.root("workflow"))
        conversation = kept.get("conversation", 0) + (start is not None)
        return Session(run, block is run, conversation), block

    def _is_known(self, run_id: str) -> bool:
        with contextlib.suppress(DecisionRefused):
            return self._entry.guard.runs.show(run_id).id == run_id
        return False

    def _free(self, run_id: str) -> str:
        """Return an id for the runtime, which knows runs that are over while anybody holds them."""
        with contextlib.suppress(RuntimeError):  # it knows none of this id
            if not getattr(self.get_external_adapter(run_id), "is_running", True):
                return f"{run_id}#{uuid.uuid4().hex[:8]}"
        return run_id

    def get_internal_adapter(self, workflow: Any) -> InternalRunAdapter:
        """Return the adapter with which the workflow runs, so that the session follows it."""
        adapter: Any = super().get_internal_adapter(workflow)
        if session := _SESSION.get():
            adapter = session.adapter = _dressed(_Inside, adapter, session)
        return adapter  # type: ignore[no-any-return]


class _Inside(InternalRunAdapter):
    """What the adapter with which a workflow runs does differently."""

    agentguard_session: Session

    async def on_tick(self, tick: Any) -> None:
        await super().on_tick(tick)
        async with self.agentguard_session.telling():
            await self.agentguard_session.ticked(tick)

    async def write_to_event_stream(self, event: Any) -> None:
        if isinstance(event, WorkflowIdleEvent):
            async with self.agentguard_session.telling():
                await self.agentguard_session.idle()
        await super().write_to_event_stream(event)  # type: ignore[safe-super]


class _Outside(ExternalRunAdapter):
    """What the adapter for the workflow's caller does differently."""

    agentguard_session: Session

    async def send_event(self, tick: Any) -> None:
        event = tick.event if isinstance(tick, TickAddEvent) else None
        if isinstance(event, HumanResponseEvent) and "approval_id" in event:
            await self.agentguard_session.take(event)
        else:
            await super().send_event(tick)  # type: ignore[safe-super]

    async def get_result(self) -> Any:
        async with self.agentguard_session:
            return await super().get_result()  # type: ignore[safe-super]


def _dressed(mixin: Any, adapter: Any, session: Session) -> Any:
    """Make *adapter* an instance of a subclass of its own class: LlamaIndex asks what it can do."""
    if not isinstance(adapter, mixin):
        adapter.__class__ = _kind(mixin, cast("Any", type(adapter)))
    adapter.agentguard_session = session
    return adapter


@cache
def _kind(mixin: Any, kind: Any) -> type[Any]:
    return type(kind.__name__, (mixin, kind), {"__module__": kind.__module__})


def _kept(serialized_state: Any, serializer: Any) -> dict[str, Any]:
    """Return what an earlier run of the workflow left in its context."""
    state = serialized_state and deserialize_state_from_dict(serialized_state, serializer)
    return getattr(state, KEPT, None) or {}
