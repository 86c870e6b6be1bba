"""The one wrapper that all decorators share: they declare on it, it runs the guarded call."""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from ._pipeline import guarded
from ._runtime import AsyncioRuntime, InlineRuntime, Runtime, ThreadRuntime, run_inline
from ._together import TogetherRuntime
from .errors import ConfigurationError
from .run import Run, active_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .tool import Policy, Stage, Tool

F = TypeVar("F", bound="Callable[..., Any]")


class Binder(Protocol):
    """What a declaration needs from a guard."""

    def bind(self, declaration: Declaration) -> Tool:
        """Return the sheet of a declared tool under this guard's configuration."""
        ...

    def run(self, workflow: str) -> Run:
        """Return a run to enter."""
        ...


DEFAULT_GUARD: list[Callable[[], Binder]] = []
"""How to get the guard of calls outside any run; the guard's room puts it here."""


class Declaration:
    """What the decorators on one function have declared so far."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", "tool")
        self.is_async = inspect.iscoroutinefunction(function)
        self.policies: dict[Stage, Policy] = {}
        self.entry: Callable[..., Any] | None = None
        """What calls the function instead of the guarded call; for what is no tool."""
        self.tools: weakref.WeakKeyDictionary[Any, Tool] = weakref.WeakKeyDictionary()

    def add(self, policy: Policy) -> None:
        """Add what one decorator declares.

        Raises:
            ConfigurationError: the same decorator stands there already, or one that it cannot stand
                beside.
        """
        earlier = self.policies.get(policy.stage)
        if earlier is not None:
            raise ConfigurationError(
                f"{self.name}: {policy.stage.name.lower()} is declared twice, as {earlier} and as"
                f" {policy}; keep one"
            )
        self.policies[policy.stage] = policy
        self.tools.clear()
        self.entry = getattr(policy, "enter", self.entry)
        for known in self.policies.values():
            check = getattr(known, "check_beside", None)
            if check is not None:
                check(self.name, self.policies)


def guarded_function(function: Any) -> Any:
    """Return *function* with a declaration on it; to everybody else it looks like the function."""
    from ._wrapper import Guarded  # loads as long as all of us

    declaration = Declaration(getattr(function, "__func__", function))
    return Guarded(function, declaration, functools.partial(_enter, declaration))


def _is_guarded(function: Any) -> bool:
    wrapper = sys.modules.get(f"{__package__}._wrapper")
    return wrapper is not None and isinstance(function, wrapper.Guarded)


def declaration_of(function: Any) -> Declaration | None:
    """Return what is declared on *function*, or None."""
    found = getattr(function, "__agentguard__", None)
    return found if isinstance(found, Declaration) else None


def declare(function: F, policy: Policy) -> F:
    """Hang *policy* on *function*, wrapping it if this is the first.

    Raises:
        ConfigurationError: *function* is no plain function, or a foreign decorator stands between
            ours.
    """
    check_function(function)
    wrapper: Any = function if _is_guarded(function) else guarded_function(function)
    wrapper.__agentguard__.add(policy)
    return cast("F", wrapper)


def check_function(function: Any) -> None:
    """Refuse what cannot be guarded.

    Raises:
        ConfigurationError: *function* is no plain function, or a foreign decorator stands between
            ours.
    """
    if _is_guarded(function):
        return
    inner = getattr(function, "__func__", function)
    name = getattr(function, "__qualname__", None) or getattr(function, "name", repr(function))
    if not (inspect.isfunction(inner) or isinstance(inner, functools.partial)):
        raise ConfigurationError(
            f"{name} is a {type(function).__name__}, not a function: put agentguard's decorators on the"
            " function it is made from (below @tool), or use guard_tools"
        )
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise ConfigurationError(
            f"{name} is a generator: a guarded tool returns one result; collect it into a list"
        )
    seen: Any = inner
    while (seen := getattr(seen, "__wrapped__", None)) is not None:
        if _is_guarded(seen):
            raise ConfigurationError(
                f"{name}: another decorator stands between agentguard's decorators; move it above or"
                " below all of them"
            )


def _enter(
    declaration: Declaration, wrapped: Callable[..., Any], instance: Any, args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:  # fmt: skip
    if declaration.entry is not None:
        return declaration.entry(declaration, wrapped, args, kwargs)
    run = active_run()
    if declaration.is_async:
        return _call_async(declaration, run, wrapped, instance, args, kwargs)
    if run is not None:
        return _call_sync(run, run.guard.bind(declaration), wrapped, instance, args, kwargs)
    guard = DEFAULT_GUARD[0]()
    tool = guard.bind(declaration)
    with guard.run(tool.name) as own:
        return _call_sync(own, tool, wrapped, instance, args, kwargs)


def _call_sync(run: Run, tool: Tool, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    runtime = runtime_for(tool)
    value, error = run_inline(guarded(runtime, run, tool, wrapped, instance, args, kwargs))
    runtime.check_cancelled()
    if error is not None:
        raise error
    return value


def runtime_for(tool: Tool) -> Runtime:
    """Return where a sync tool's body runs."""
    if tool.isolation == "thread":
        return ThreadRuntime()
    if tool.same_database:
        return TogetherRuntime()
    if tool.isolation == "process":
        from ._isolated import ProcessRuntime

        return ProcessRuntime()
    return InlineRuntime()


async def _call_async(
    declaration: Declaration, run: Run | None, wrapped: Any, instance: Any, args: Any, kwargs: Any
) -> Any:
    if run is not None:
        tool = run.guard.bind(declaration)
        return await _finish(run, tool, wrapped, instance, args, kwargs)
    guard = DEFAULT_GUARD[0]()
    tool = guard.bind(declaration)
    async with guard.run(tool.name) as own:
        return await _finish(own, tool, wrapped, instance, args, kwargs)


async def _finish(run: Run, tool: Tool, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    runtime = AsyncioRuntime()
    value, error = await guarded(runtime, run, tool, wrapped, instance, args, kwargs)
    runtime.check_cancelled()
    if error is not None:
        raise error
    return value
