"""What is being executed: tool calls, and whatever else a runtime above LangChain enters as a frame.

LangChain's callbacks enter and leave *frames*. A frame lives in the context of what it stands for.
"""

from __future__ import annotations

import itertools
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentguard.hosting import setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from uuid import UUID

    from agentguard.hosting import CallRef


_FRAME: ContextVar[Frame | None] = ContextVar("agentguard_langchain_frame", default=None)


@dataclass(slots=True, eq=False, kw_only=True)
class Frame:
    """Something that is being executed.

    Attributes:
        run: LangChain's id of it; whatever enters a run has none.
        ref: the call, as the core wants to know it; one object for each execution.
        is_tool: whether a model waits for its answer.
        outer: the frame around it.
        edits: what people changed in the arguments of guarded calls inside.
        over: whether it has ended. Who ends it may stand in a copy of its context, and cannot
            take it away from there.
    """

    run: UUID | None
    ref: CallRef
    is_tool: bool = False
    outer: Frame | None = field(default_factory=_FRAME.get)
    edits: dict[str, Any] = field(default_factory=dict[str, Any])
    over: bool = False


def inside(frame: Frame) -> AbstractContextManager[Frame | None]:
    """Execute the block in *frame*."""
    return setting(_FRAME, frame)


def enter(frame: Frame) -> None:
    """Remember *frame* in this context, of which its body gets a copy."""
    _FRAME.set(frame)


def leave(run: UUID) -> Mapping[str, Any]:
    """End the frame that was entered as *run*; return what people changed inside."""
    edits: dict[str, Any] = {}
    for frame in frames():
        if frame.run == run:
            frame.over, edits = True, frame.edits
    return edits


def frames() -> Iterator[Frame]:
    """Yield what is being executed here, the innermost first."""
    frame = _FRAME.get()
    while frame is not None:
        if not frame.over:
            yield frame
        frame = frame.outer


def current() -> CallRef | None:
    """Return the call whose code runs here."""
    frame = next(frames(), None)
    return None if frame is None or frame.run is None else frame.ref


def tool_call() -> Frame | None:
    """Return the tool call for whose answer a model waits while this code runs."""
    own = itertools.takewhile(lambda frame: frame.run is not None, frames())
    return next((frame for frame in own if frame.is_tool), None)
