"""Which call this is: the step that is executed, or what the step says it executes.

The runtime numbers the work that it hands to steps and keeps the number with the work: in retries,
in replays after a wait, and in saved contexts. So step and number name the same execution wherever
it is repeated, and parallel branches have numbers of their own.
"""

# The engine is typed, but pyright misses its marker below the top.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workflows.runtime.types.results import StepWorkerContext, StepWorkerStateContextVar

from agentguard.hosting import CallRef, setting

if TYPE_CHECKING:
    from collections.abc import Generator


@dataclass(slots=True, eq=False)
class Frame:
    """A step, or a call that a step executes for a model.

    Attributes:
        ref: the call, as the core wants to know it; one object for each execution.
        step: the runtime's own record of the execution.
        edits: what people changed in the arguments of guarded calls inside.
    """

    ref: CallRef
    step: StepWorkerContext
    edits: dict[str, Any] = field(default_factory=dict)


_FRAME: ContextVar[Frame | None] = ContextVar("agentguard_llamaindex_frame", default=None)
_ROOT: ContextVar[str] = ContextVar("agentguard_llamaindex_root", default="")


def begin(root: str) -> None:
    """Name the calls of the workflow that is about to run in this context below *root*."""
    _FRAME.set(None)
    _ROOT.set(root)


def current() -> Frame | None:
    """Return the step, or the call that it executes, whose code runs here."""
    return _FRAME.get()


def running_step() -> StepWorkerContext | None:
    """Return the runtime's record of the step that is executed here."""
    return StepWorkerStateContextVar.get(None)


@contextmanager
def step() -> Generator[None]:
    """Remember the step that begins here, unless it is the one that is executed already."""
    outer, here = current(), running_step()
    if here is None or (outer and outer.step is here):
        yield
        return
    number = (here.state.work_item_id or "").removeprefix("work_item_")
    with tool_call(f"{here.state.step_name}@{number}"):
        yield


@contextmanager
def tool_call(call_id: str, occurrence: int = 0, agent: str | None = None) -> Generator[Frame]:
    """Say which call of the model the guarded calls inside belong to, in a step of your own.

    `Run.tool_call` does so outside of workflows. Without either, they belong to the step.

    Args:
        call_id: the model's id of the call.
        occurrence: tells calls apart to which the model gave the same id.
        agent: the name of the agent that called.
    """
    ref = CallRef(_ROOT.get() + call_id, occurrence, agent)
    frame = Frame(ref, StepWorkerStateContextVar.get())
    with setting(_FRAME, frame):
        yield frame
