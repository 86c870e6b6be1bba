"""A workflow that enters a run around whatever it executes, and is the workflow otherwise.

The guarded workflow is an instance of a subclass of the workflow's own class, not a proxy around
it: the runtime, and the workflow's own code, call its methods.
"""

from __future__ import annotations

import copy
import functools
import inspect
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from workflows import Workflow

from agentguard import ConfigurationError, GuardError
from agentguard.hosting import Entry, RunIdOf, Who

from ._host import forget_waiters
from ._place import step as in_step
from ._runtime import GuardedRuntime
from .events import ApprovalDecided

if TYPE_CHECKING:
    from workflows.retry_policy import RetryPolicy

    from agentguard import Guard

WorkflowT = TypeVar("WorkflowT", bound=Workflow)


def guard_workflow(
    given: WorkflowT, guard: Guard, /, *, workflow: str | None = None, principal: Who = None,
    run_id: RunIdOf = None, mixin: Any = None, **budget: Any,
) -> WorkflowT:  # fmt: skip
    """Return *given* so that every `run` of it happens inside a run of *guard*.

    The workflow itself stays as it is.

    Args:
        given: a workflow.
        guard: where runs, effects and approvals are kept.
        workflow: what kind of run it is; the guard's own workflow or the class's name if omitted.
        principal: who acts, or a function of the start event that says so; it gets None when a
            saved context goes on.
        run_id: the run's id, or a function of the start event. If omitted, the id that the context
            has already, or else the handler's `run_id`.
        mixin: what else the guarded workflow does differently; for adapters of what is built on
            workflows.
        budget: what `Guard.run` takes, such as `max_steps`; replaces the configuration's.

    Raises:
        ConfigurationError: *given* is not a workflow, or guarded already.
    """
    original: Any = given
    if not isinstance(original, Workflow):
        raise ConfigurationError(
            f"guard_workflow takes a workflow, not {type(original).__name__}:"
            " guard_workflow(MyWorkflow(), guard)"
        )
    if isinstance(given, _Guarded):
        raise ConfigurationError("this workflow is guarded already: call guard_workflow once")
    guarded: Any = copy.copy(given)
    # pydantic, of which agents are made, keeps ordinary assignment for fields.
    kind: Any = _guarded_class(cast("Any", type(given)), mixin)
    object.__setattr__(guarded, "__class__", kind)
    name = workflow or guard.settings.workflow or type(given).__name__
    guarded._runtime = GuardedRuntime(given.runtime, Entry(guard, name, principal, run_id, budget))
    guarded._runtime_locked, guarded._broker_config = False, None
    guarded.runtime.track_workflow(guarded)
    return cast("WorkflowT", guarded)


class _Guarded(Workflow):
    """What a guarded workflow does differently."""

    @property
    def events(self) -> list[Any]:
        """The events of the workflow, and the one that wakes a waiting step."""
        return [*super().events, ApprovalDecided]


@functools.cache
def _guarded_class(kind: Any, mixin: Any) -> Any:
    own = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    free: dict[str, Any] = kind._step_functions
    steps = {n: _framed(f) for n, f in kind._get_steps_from_class().items() if n not in free}
    bases = (mixin, _Guarded, kind) if mixin else (_Guarded, kind)
    made: Any = type(kind)(kind.__name__, bases, {**own, **steps})
    made._step_functions = {name: _framed(function) for name, function in free.items()}
    return made


def _framed(step: Any) -> Any:
    """Return *step* so that guarded calls know it; it is not retried after a refusal."""

    def run(*args: Any, **kwargs: Any) -> Any:
        forget_waiters()
        with in_step():
            return step(*args, **kwargs)

    async def arun(*args: Any, **kwargs: Any) -> Any:
        forget_waiters()
        with in_step():
            return await step(*args, **kwargs)

    framed: Any = functools.wraps(step)(arun if inspect.iscoroutinefunction(step) else run)
    config = step._step_config
    policy = config.retry_policy and _not_after_refusals(config.retry_policy)
    framed._step_config = replace(config, retry_policy=policy)
    return framed


def _not_after_refusals(policy: RetryPolicy) -> RetryPolicy:
    """Return a policy that leaves refusals alone: the same call is refused the same way."""

    @functools.wraps(policy.next)  # the runtime looks at its parameters
    def following(elapsed: float, attempts: int, error: Exception, **more: Any) -> float | None:
        if isinstance(error, GuardError) and not error.retryable:
            return None
        return policy.next(elapsed, attempts, error, **more)

    return cast("RetryPolicy", SimpleNamespace(next=following))
