"""The room of workflows: a function, each call of which is a run."""

from __future__ import annotations

import inspect
import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, overload
from uuid import UUID

from ._signature import names_of
from .declaration import DEFAULT_GUARD, check_function, declare
from .errors import ConfigurationError, ContractViolation
from .model import Principal
from .tool import Stage

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .config import Settings
    from .declaration import Declaration, F
    from .guard import Guard
    from .run import Run
    from .tool import Tool

Who = Principal | Callable[..., Principal | None] | None
_NAME = re.compile(r"[^\W\d]\w*")


@overload
def workflow(name: F) -> F: ...


@overload
def workflow(
    name: str | None = None, *, run_id: str | None = None, guard: Guard | None = None,
    principal: Who = None,
) -> Callable[[F], F]: ...  # fmt: skip


def workflow(
    name: Any = None, *, run_id: str | None = None, guard: Guard | None = None,
    principal: Who = None,
) -> Any:  # fmt: skip
    """Make each call of a function a run of this workflow; `@budget` on it limits its runs.

    Args:
        name: the workflow's name; the function's by default.
        run_id: a template over the arguments, such as `refund-{ticket_id}`: a call with the same
            id goes on where the run stopped. A fresh id by default.
        guard: where the runs are kept; the configured guard by default.
        principal: who acts, or a callable over the arguments; the guard's principal by default.

    Raises:
        ConfigurationError: *run_id* is no template over the function's arguments, or the function
            is a tool.
    """
    if callable(name):
        return workflow()(name)
    policy = Workflow(name, run_id, guard, principal)
    policy.check()

    def decorate(function: F) -> F:
        check_function(function)
        policy.check_names(function)
        return declare(function, policy)

    return decorate


@dataclass(frozen=True)
class Workflow:
    """What `workflow` declares."""

    name: str | None
    run_id: str | None
    guard: Guard | None
    principal: Who

    @property
    def stage(self) -> Stage:
        """It is no promise of a tool, so nothing comes after it."""
        return Stage.WORKFLOW

    def check(self) -> None:
        """Refuse what cannot be a workflow's.

        Raises:
            ConfigurationError: with the sentence that says what to change.
        """
        given: Any = self.name
        if given is not None and not (isinstance(given, str) and given.strip()):
            raise ConfigurationError(f"workflow: {self.name!r} is not a name")
        if self.run_id is not None and not _fields_of(self.run_id):
            raise ConfigurationError(
                f"workflow: run_id={self.run_id!r} names no argument, so every call would be the same"
                " run; write a template such as refund-{ticket_id}"
            )

    def check_names(self, function: Any) -> None:
        """Refuse a run id over arguments that the function does not have.

        Raises:
            ConfigurationError: with the arguments that there are.
        """
        known = names_of(function)
        for name in _fields_of(self.run_id or ""):
            if known is not None and name not in known:
                raise ConfigurationError(
                    f"workflow: run_id={self.run_id!r} names {name!r}, which is none of its arguments"
                    f" ({', '.join(known) or 'it has none'})"
                )

    def check_beside(self, name: str, others: Collection[Stage]) -> None:
        """Refuse to stand on a tool.

        Raises:
            ConfigurationError: with the sentence that says what to change.
        """
        for stage in others:
            if stage not in (Stage.WORKFLOW, Stage.BUDGET):
                raise ConfigurationError(
                    f"{name} is a workflow, and {stage.name.lower()} is for tools: put it on the tools"
                    " that the workflow calls"
                )

    def bind(self, tool: Tool, _settings: Settings) -> None:
        """Refuse to be a tool."""
        raise ConfigurationError(
            f"{tool.name} is a workflow, not a tool: call it, or guard its tools"
        )

    def enter(
        self, declaration: Declaration, wrapped: Callable[..., Any], args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:  # fmt: skip
        """Call the function inside a run of its own."""
        run = self._run(declaration, wrapped, args, kwargs)
        if declaration.is_async:
            return _inside(run, wrapped, args, kwargs)
        with run:
            return wrapped(*args, **kwargs)

    def _run(
        self, declaration: Declaration, wrapped: Callable[..., Any], args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Run:  # fmt: skip
        name, run_id, who = self.name or declaration.name, None, self.principal
        if self.run_id is not None or callable(who):
            given = inspect.signature(wrapped).bind(*args, **kwargs)
            given.apply_defaults()
            run_id = None if self.run_id is None else _filled(self.run_id, given.arguments, name)
            who = who(*args, **kwargs) if callable(who) else who
        limits: Any = declaration.policies.get(Stage.BUDGET)
        guard: Any = self.guard or DEFAULT_GUARD[0]()
        budget = {} if limits is None else limits.run_limits(name)
        run: Run = guard.run(name, run_id=run_id, principal=who, **budget)
        return run


async def _inside(
    run: Run, wrapped: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    async with run:
        return await wrapped(*args, **kwargs)


def _fields_of(template: str) -> list[str]:
    try:
        fields = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ConfigurationError(f"workflow: run_id={template!r} is no template: {error}") from None
    for name, spec, conversion in fields:
        if not _NAME.fullmatch(name or "") or spec or conversion:
            raise ConfigurationError(
                f"workflow: run_id={template!r} holds more than names of arguments in braces"
            )
    return [str(name) for name, _, _ in fields]


def _filled(template: str, values: Mapping[str, Any], name: str) -> str:
    """Return the id of the run for these arguments.

    Raises:
        ContractViolation: one of them is nothing that could name a run.
    """
    chosen = {field: values.get(field) for field in _fields_of(template)}
    for field, value in chosen.items():
        plain = isinstance(value, str | int | Decimal | UUID) and not isinstance(value, bool)
        if not plain or not str(value).strip():
            raise ContractViolation(
                f"{name}: its run is named by {field}, which must be a text, a number or a UUID"
            )
    return template.format(**chosen)
