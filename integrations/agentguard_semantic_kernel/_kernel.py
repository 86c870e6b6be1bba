"""A kernel whose functions and model calls are guarded, and which is the kernel otherwise.

It becomes an instance of a subclass of its own class, which holds our filters at their places:
around all others for what a model calls, inside all others for functions, whatever is added to the
kernel or taken from it later, and in its clones.
"""

from __future__ import annotations

from contextlib import nullcontext
from copy import copy
from functools import partial
from typing import Any, ClassVar, TypeVar, cast

from opentelemetry import trace
from semantic_kernel.filters import FilterTypes
from semantic_kernel.kernel import Kernel

from agentguard import ApprovalRequired, ConfigurationError, Guard, GuardError
from agentguard.hosting import Entry, RunIdOf, Who, edits_note, question, setting, undressing

from ._call import EXECUTED, FRAME, PROMPT, TURN, Executed, Frame, Turn, place_of
from ._functions import execute
from ._history import QUESTION, UNFINISHED
from ._services import entered, guarded

KernelT = TypeVar("KernelT", bound=Kernel)


def guard_kernel(
    kernel: KernelT, guard: Guard, *, workflow: str | None = None, principal: Who = None,
    run_id: RunIdOf = None, **budget: Any,
) -> KernelT:  # fmt: skip
    """Guard *kernel*, and return it.

    Inside `guard.run(...)` all it does belongs to that run. Elsewhere each invocation, and each
    turn of an agent, is a run of its own, and the options say which.

    Args:
        kernel: a kernel; plugins, services and filters may be added before or later.
        guard: where runs, effects and approvals are kept.
        workflow: what kind of run it is; the guard's own workflow if omitted.
        principal: who acts, or a function of the kernel's arguments that says so.
        run_id: the run's id, or a function of the kernel's arguments.
        budget: what `Guard.run` takes, such as `max_steps`; replaces the configuration's.

    Raises:
        ConfigurationError: *kernel* is no kernel, or guarded already.
    """
    given: Any = kernel
    if isinstance(given, _GuardedKernel):
        raise ConfigurationError("this kernel is guarded already: call guard_kernel once")
    if not isinstance(given, Kernel):
        raise ConfigurationError(f"guard_kernel takes a Kernel, not {type(given).__name__}")
    entry = Entry(guard, workflow or guard.settings.workflow or "kernel", principal, run_id, budget)
    return cast("KernelT", guarded(given, entry, _GuardedKernel))


class _GuardedKernel(Kernel):
    """What a guarded kernel does differently."""

    agentguard_entry: ClassVar[Entry]

    def construct_call_stack(self, filter_type: Any, inner_function: Any) -> Any:
        """Put our filter at its place among the others."""
        build, entry = super().construct_call_stack, self.agentguard_entry
        if filter_type is FilterTypes.AUTO_FUNCTION_INVOCATION:
            return partial(_around_call, entry, build(filter_type, inner_function))
        if filter_type is FilterTypes.PROMPT_RENDERING:
            return build(filter_type, partial(_around_prompt, inner_function))
        span = trace.get_current_span()  # of this execution: no filter has been called yet
        return build(filter_type, partial(_around_function, entry, inner_function, span))

    async def invoke(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a function; a refusal reaches the caller as itself."""
        with undressing():
            return await super().invoke(*args, **kwargs)

    def get_services_by_type(self, type: Any) -> Any:  # noqa: A002 - SK's name
        """Return the services; those that ask models are guarded first."""
        for name, service in self.services.items():
            if vars(service).get("agentguard_entry") is not self.agentguard_entry:
                self.services[name] = guarded(copy(service), self.agentguard_entry)
        return super().get_services_by_type(type)

    def clone(self) -> Kernel:
        """Return a clone, which is guarded too."""
        return cast("Kernel", guarded(super().clone(), self.agentguard_entry, _GuardedKernel))


async def _around_call(entry: Entry, proceed: Any, context: Any) -> None:
    """Carry out what a model calls; tell the model of a refusal, and its caller of some."""
    turn, call, history = TURN.get(), context.function_call_content, context.chat_history
    async with entered(entry, context.arguments) as run:
        frame = Frame(place_of(call, history, run, anew=turn is not None))
        with setting(FRAME, frame):
            await proceed(context)
        refusal, is_inner = frame.refusal, turn is not None and turn.is_inner
        waits = isinstance(refusal, ApprovalRequired) and not is_inner
        run.waiting("a call waits for people" if waits else "", of=str(frame.place))
        if refusal is not None:
            _refused(context, refusal, turn)
        elif frame.edits:
            result = context.function_result
            result.value = f"{result.value}\n{edits_note(frame.edits)}"


def _refused(context: Any, error: Any, turn: Turn | None) -> None:
    """Put what the model is told in the place of the result; some refusals end the turn."""
    told: Any = {QUESTION: question(error.approval)} if isinstance(error, ApprovalRequired) else {}
    if told or error.halts:
        context.terminate, told[UNFINISHED] = True, error.kind
    if error.halts or (told and turn and turn.is_inner):
        if turn is None:
            raise error
        turn.stopped = error if turn.stopped is None or error.halts else turn.stopped
    result = context.function_result
    result.value, result.metadata = error.for_model(), told


async def _around_function(entry: Entry, proceed: Any, span: Any, context: Any) -> None:
    """Execute a function in the run; what streams enters it later, when it is iterated."""
    frame = FRAME.get()
    if frame is None or frame.ref is not None:
        frame = Frame(("", 0))  # not what the model called, but something inside
    frame.begin()
    executed = Executed(entry.guard, context.kernel, context.function, span)
    try:
        async with nullcontext() if context.is_streaming else entered(entry, context.arguments):
            with setting(PROMPT, None), setting(EXECUTED, executed), undressing():
                await execute(entry.guard, proceed, context)
    except GuardError as refusal:
        frame.refusal = refusal
        raise
    finally:
        frame.ref = None


async def _around_prompt(proceed: Any, context: Any) -> None:
    """Render a prompt, and remember which one a model is about to be asked."""
    await proceed(context)
    PROMPT.set(context.function.fully_qualified_name)
