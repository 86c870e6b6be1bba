"""Which call of the model this is: the same one whenever its history is gone on with."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentguard.hosting import CallRef, Host, ModelReports, Run

if TYPE_CHECKING:
    from semantic_kernel.contents import FunctionCallContent

    from agentguard import Guard, GuardError

STAMP = "agentguard_call"
"""Where a call keeps its run and its place."""


@dataclass(slots=True, eq=False)
class Frame:
    """A call of the model that is being carried out; the calls of a turn run side by side.

    Attributes:
        place: its id, below those of the calls around it, and which of its equals it is.
        ref: the call as the core wants to know it, while its function is executed.
        refusal: why the function did not do it.
        edits: what a person changed in the arguments.
    """

    place: tuple[str, int]
    ref: CallRef | None = None
    refusal: GuardError | None = None
    edits: dict[str, Any] = field(default_factory=dict[str, Any])

    def begin(self) -> None:
        """Begin to execute the function, once more if a filter wants it: it is the same call."""
        self.ref, self.refusal = CallRef(*self.place), None


@dataclass(slots=True, eq=False)
class Turn:
    """What a model says and calls until it has answered.

    Attributes:
        kernel: executes the calls.
        is_inner: whether it belongs to a function that a model called; nobody sees its history.
        stopped: the refusal that ends it.
    """

    run: Run
    reports: ModelReports
    kernel: Any
    is_inner: bool
    stopped: GuardError | None = None


@dataclass(frozen=True, slots=True)
class Executed:
    """A function that is executed, whoever has called it.

    Attributes:
        kernel: executes it.
        span: that Semantic Kernel keeps for this execution.
    """

    guard: Guard
    kernel: Any
    function: Any
    span: Any

    def is_of(self, tool: str) -> bool:
        """Return whether this is what executes *tool*: its function, or one around it.

        One around it is not guarded itself and has the tool's name, and the kernel has no other
        function that is the tool.
        """
        known = known_as(self.guard, self.function)
        if known is not None or self.function.name != tool:
            return known == tool
        every = (f for plugin in self.kernel.plugins.values() for f in plugin.functions.values())
        return all(known_as(self.guard, function) != tool for function in every)


def known_as(guard: Guard, function: Any) -> str | None:
    """Return which tool *function* is to the guard; None if it is not guarded."""
    if declaration := declaration_of(function):
        return guard.bind(declaration).name
    name = str(function.fully_qualified_name)
    return name if name in guard.settings.tools else None


def declaration_of(function: Any) -> Any:
    """Return what was declared about the method of *function*; None if it is not decorated."""
    return getattr(getattr(function, "method", None), "__agentguard__", None)


FRAME: ContextVar[Frame | None] = ContextVar("agentguard_sk_call", default=None)
EXECUTED: ContextVar[Executed | None] = ContextVar("agentguard_sk_executed", default=None)
TURN: ContextVar[Turn | None] = ContextVar("agentguard_sk_turn", default=None)
PROMPT: ContextVar[str | None] = ContextVar("agentguard_sk_prompt", default=None)
"""The name of the prompt that was rendered for the turn that begins."""


class SemanticKernelHost(Host):
    """Semantic Kernel around the guarded calls of one run.

    It cannot pause: `ApprovalRequired` is raised, and the filter around the call makes a
    placeholder of it.
    """

    name = "semantic_kernel"
    control_flow = (GeneratorExit,)  # closes a stream early

    def call(self) -> CallRef | None:
        """Return the model's call whose function is executed here."""
        frame = FRAME.get()
        return frame.ref if frame else None

    def tool_span(self, tool: str) -> Any:
        """Return Semantic Kernel's own span of the function, inside which its run may have begun."""
        executed = EXECUTED.get()
        return executed.span if executed and executed.is_of(tool) else None

    def edited(self, result: Any, edits: Any) -> Any:
        """Leave the result to the code that asked for it, and see that the model is told."""
        if frame := FRAME.get():
            frame.edits.update(edits)
        return result


def place_of(
    call: FunctionCallContent, history: Any, run: Run, *, anew: bool = False
) -> tuple[str, int]:
    """Return the place of *call*, which is kept with the call wherever its history is kept.

    Models give one id to different calls. So those before it in its history are counted, and if
    it is made *anew* those that were made in other histories.
    """
    stamp = call.metadata.get(STAMP)
    if stamp and stamp[0] == run.id:
        return stamp[1], stamp[2]
    path = f"{run.root()}{call.id}"
    like = [i for m in history or () for i in m.items if type(i) is type(call) and i.id == call.id]
    number = next((n for n, item in enumerate(like) if item is call), max(len(like) - 1, 0))
    number = run.number(path, number) if anew else number
    call.metadata[STAMP] = [run.id, path, number]
    return path, number
