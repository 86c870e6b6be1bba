"""A tool as it is graded: what its decorators, or the configuration, declare of it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .._binding import bound
from .._tool_objects import ToolParts, parts_of
from ..approval import ApprovalPolicy
from ..budget import Budget
from ..compensation import Compensation
from ..contract import Contract
from ..declaration import declaration_of, guarded_function
from ..errors import ConfigurationError
from ..fallback import Fallback
from ..idempotency import Idempotency
from ..policies import apply_policy
from ..tool import Stage
from ..verification import Verification

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config import Settings
    from ..declaration import Declaration
    from ..tool import EffectKind, Policy, Tool

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Subject:
    """One tool.

    Attributes:
        policies: what is declared on it, by its place.
        sheet: everything the guarded call would know; None if it could not be called.
        error: why it could not.
        function: what runs.
        file: where that stands, with its *line*.
    """

    name: str
    policies: Mapping[Stage, Policy] = field(default_factory=dict["Stage", "Policy"])
    sheet: Tool | None = None
    error: str | None = None
    function: Any = None
    file: str | None = None
    line: int | None = None

    @property
    def contract(self) -> Contract | None:
        """What the tool is."""
        return self._policy(Contract)

    @property
    def effect(self) -> EffectKind | None:
        """What the tool does; None where nobody says so."""
        return self.contract.effect if self.contract else None

    @property
    def key(self) -> Idempotency | None:
        """Which calls are one effect."""
        return self._policy(Idempotency)

    @property
    def approval(self) -> ApprovalPolicy | None:
        """When people decide, by the tool's own word."""
        return self._policy(ApprovalPolicy)

    @property
    def budget(self) -> Budget | None:
        """How often and for how much it may be called."""
        return self._policy(Budget)

    @property
    def verification(self) -> Verification | None:
        """Who confirms its outcomes."""
        return self._policy(Verification)

    @property
    def undo(self) -> Compensation | None:
        """What undoes its effect."""
        return self._policy(Compensation)

    @property
    def fallback(self) -> Fallback | None:
        """How its run ends when it cannot be called."""
        return self._policy(Fallback)

    @property
    def moves_money(self) -> bool:
        """Whether it names an amount in US dollars, as a fact or as a cost that depends on the call.

        A fixed amount is what a call costs.
        """
        facts = self.contract.facts if self.contract else {}
        fixed = self.sheet is not None and self.sheet.fixed_cost is not None
        cost = self.budget.cost if self.budget and not fixed else None
        return any("usd" in fact.lower() for fact in facts) or cost is not None

    def _policy(self, kind: type[P]) -> P | None:
        return next((found for found in self.policies.values() if isinstance(found, kind)), None)


def subject_of(thing: Any, settings: Settings) -> Subject:
    """Return *thing*, a decorated function, a function or a framework's tool, as it is graded."""
    parts = _parts_of(thing)
    name, function = parts.name, parts.function
    declaration = declaration_of(function)
    file, line = _place_of(function)
    error: str | None = None
    sheet: Tool | None = None
    try:
        declaration = declaration or _by_configuration(parts, settings)
        if declaration is not None and Stage.WORKFLOW not in declaration.policies:
            sheet = bound(declaration, settings)
    except ConfigurationError as refusal:
        error = refusal.message
    policies = dict(declaration.policies) if declaration else {}
    contract = policies.get(Stage.CONTRACT)
    named = getattr(contract, "name", None) or (declaration.name if declaration else name)
    return Subject(named, policies, sheet, error, inspect.unwrap(function), file, line)


def _parts_of(thing: Any) -> ToolParts:
    """Return the function that is guarded, also of the tool objects of frameworks."""
    if declaration_of(thing) is None and (known := parts_of(thing)):
        return known
    return ToolParts(str(getattr(thing, "__name__", thing)), thing)


def _by_configuration(parts: ToolParts, settings: Settings) -> Declaration | None:
    """Return what the file says under `tools:` of a tool that nobody has decorated."""
    section = settings.tools.get(parts.name)
    if section is None or not callable(parts.function):
        return None
    guarded = guarded_function(parts.function)
    apply_policy(guarded, parts.name, {}, section, input_schema=parts.schema)
    return declaration_of(guarded)


def _place_of(function: Any) -> tuple[str | None, int | None]:
    """Return the file, relative to where the shell stands if it is below, and the line."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return None, None
    path = Path(code.co_filename)
    here = Path.cwd()
    return (
        str(path.relative_to(here)) if path.is_relative_to(here) else str(path),
        code.co_firstlineno,
    )
