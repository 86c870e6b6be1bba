"""The compensation room: how an effect that should not stand is undone, by an effect of its own."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from . import _verdicts
from ._independence import separate
from ._signature import Returned
from ._undo import Given, Undo
from .canonical import dumps, sha256
from .declaration import declaration_of, declare
from .durations import seconds
from .errors import ConfigurationError
from .ledger.values import Ask
from .tool import Stage, Tool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .config import Settings
    from .declaration import F
    from .tool import Policy

When = Literal["failed_verdict", "rollback_only"]

_OPTIONS = ("roles", "quorum", "expires")
_ALLOWED = (Stage.APPROVAL, Stage.VERIFICATION)
_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def compensated_by(
    undo: Callable[..., Any], *, when: When = "failed_verdict",
    approval: bool | Mapping[str, Any] = False,
    verified_by: Callable[..., Any] | Sequence[Callable[..., Any]] = (),
) -> Callable[[F], F]:  # fmt: skip
    """Declare what undoes the tool's effect, if a verifier does not confirm it or people want it.

    The undo is an effect of its own: with a key, a record, and an approval and verifiers if it has
    some. It never starts twice, and only for an effect that is known to have happened.

    Args:
        undo: called as `undo(result, **arguments)` with the tool's result and those of its
            arguments that it names; sync for a sync tool. It may carry `requires_approval` and
            `verified_by` itself.
        when: `failed_verdict` undoes by itself what a verifier does not confirm; `rollback_only`
            leaves that in doubt. Both undo what `Guard.rollback` names.
        approval: True, or a mapping of `roles`, `quorum` and `expires`: people decide before it.
        verified_by: a verifier of the undo, or several.

    Raises:
        ConfigurationError: the declaration contradicts itself.
    """
    if when not in ("failed_verdict", "rollback_only"):
        raise ConfigurationError('compensated_by: when is "failed_verdict" or "rollback_only"')
    checks = verified_by if isinstance(verified_by, list | tuple) else [verified_by]
    declared = declaration_of(undo)
    policies = tuple(declared.policies.values()) if declared else ()
    policy = Compensation(
        declared.function if declared else undo, when, _ask(undo, approval),
        tuple(_verdicts.check_of(check) for check in checks), policies,
    )  # fmt: skip
    policy.check()
    return lambda function: declare(function, policy)


def _ask(undo: Any, approval: Any) -> Ask | None:
    if approval is False:
        return None
    given = {} if approval is True else dict(approval)
    unknown = sorted(set(given) - set(_OPTIONS))
    if unknown:
        raise ConfigurationError(
            f"compensated_by: approval has no option {unknown[0]!r}; it has {', '.join(_OPTIONS)};"
            " for others put @requires_approval on the undo"
        )
    roles = given.get("roles", ())
    quorum = given.get("quorum", 1)
    if type(quorum) is not int or quorum < 1:
        raise ConfigurationError("compensated_by: quorum is a number of people from 1")
    return Ask(
        f"undo by {getattr(undo, '__name__', 'a callable')}",
        tuple([roles] if isinstance(roles, str) else roles), quorum,
        seconds(given.get("expires", "24h"), "expires"),
    )  # fmt: skip


@dataclass(frozen=True)
class Compensation:
    """What `compensated_by` declares."""

    undo: Callable[..., Any]
    when: When
    ask: Ask | None
    checks: tuple[_verdicts.Check, ...]
    policies: tuple[Policy, ...] = ()

    @property
    def stage(self) -> Stage:
        """After the contract and the key: an undo takes what they keep."""
        return Stage.COMPENSATION

    @property
    def name(self) -> str:
        """What the record calls the undo."""
        return str(getattr(self.undo, "__name__", "undo"))

    def check(self) -> None:
        """Refuse what cannot undo anything.

        Raises:
            ConfigurationError: with the sentence that says what to change.
        """
        if not callable(self.undo):
            raise ConfigurationError("compensated_by: give a callable(result, **arguments)")
        others = sorted(policy.stage for policy in self.policies if policy.stage not in _ALLOWED)
        if others:
            raise ConfigurationError(
                f"{self.name}: an undo takes its contract and key from its tool: leave out the"
                f" {others[0].name.lower()} decorator on it"
            )
        if self.ask is not None and any(p.stage is Stage.APPROVAL for p in self.policies):
            raise ConfigurationError(
                f"{self.name}: its approval is declared twice; keep @requires_approval on the undo, or"
                " approval="
            )

    def bind(self, tool: Tool, settings: Settings) -> None:
        """Write the undo on the sheet.

        Raises:
            ConfigurationError: this tool's effect cannot be undone so.
        """
        self._check_tool(tool)
        names = self._names(tool)
        sheet = self._sheet(tool, names)
        for policy in self.policies:
            policy.bind(sheet, settings)
        if self.ask is not None:
            ask = self.ask
            sheet.rules.append(lambda _call: ask)
        if not tool.is_async and any(check.is_async for check in self.checks):
            raise ConfigurationError(
                f"{tool.name} is sync, so the verifiers of its undo must be sync"
            )
        sheet.checks.extend(self.checks)
        asks = self.ask is not None or any(p.stage is Stage.APPROVAL for p in self.policies)
        separate(sheet, settings, asks_always=asks)
        sheet.policy = f"undo:{_fingerprint(self)}"
        tool.undo = self.name
        tool.compensation = Undo(tool, sheet, names, on_verdict=self.when == "failed_verdict")

    def _check_tool(self, tool: Tool) -> None:
        if tool.effect != "write":
            raise ConfigurationError(
                f'{tool.name} writes nothing, so there is nothing to undo: declare effect="write", or'
                " leave out @compensated_by"
            )
        if tool.irreversible:
            raise ConfigurationError(
                f"{tool.name} is irreversible and has an undo; keep irreversible=True or"
                " @compensated_by"
            )
        if not tool.is_async and inspect.iscoroutinefunction(self.undo):
            raise ConfigurationError(f"{tool.name} is sync, so its undo must be sync")

    def _names(self, tool: Tool) -> tuple[str, ...]:
        """Return the undo's parameters: the result, then arguments of the tool."""
        parameters = list(inspect.signature(self.undo).parameters.values())
        if not parameters or parameters[0].kind not in _PLACED:
            raise ConfigurationError(
                f"{self.name}: an undo takes the result first: {self.name}(result, ...)"
            )
        result, names = parameters[0].name, self._arguments(tool, parameters[1:])
        if result in tool.parameters:
            raise ConfigurationError(
                f"{self.name}: its first parameter is the result of {tool.name}, and {result} is one"
                " of its arguments; call it result"
            )
        for name in names:
            self._check_kept(tool, name)
        return (result, *names)

    def _arguments(self, tool: Tool, parameters: Sequence[inspect.Parameter]) -> list[str]:
        names: list[str] = []
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                names += [name for name in tool.parameters if name not in names]
            elif parameter.kind in _NAMED:
                names.append(parameter.name)
            else:
                raise ConfigurationError(
                    f"{self.name}: an undo is called as undo(result, **arguments); name the arguments"
                )
        return names

    def _check_kept(self, tool: Tool, name: str) -> None:
        if name not in tool.parameters:
            raise ConfigurationError(
                f"{self.name}: {tool.name} has no argument {name!r} to give to its undo"
                f" ({', '.join(tool.parameters) or 'it has none'})"
            )
        if name in tool.sensitive or name in tool.volatile:
            kind = "sensitive" if name in tool.sensitive else "volatile"
            raise ConfigurationError(
                f"{self.name}: {name!r} is a {kind} argument of {tool.name} and not kept, so an undo"
                " cannot have it: return what the undo needs in the result, or name other arguments"
            )

    def _sheet(self, tool: Tool, names: tuple[str, ...]) -> Tool:
        """Return the undo as a tool: it runs and fails as its tool does, under its own name."""
        return Tool(
            name=f"{tool.name}.undo",
            function=_in_colour(self.undo, is_async=tool.is_async),
            is_async=tool.is_async,
            arguments=Given(names),
            results=Returned(self.undo, f"{tool.name}.undo", strict=False),
            version=tool.version,
            effect="write",
            parameters=names,
            timeout=tool.timeout,
            isolation=None if tool.isolation is None else "thread",
            retry=tool.retry,
            classify=tool.classify,
            same_database=tool.same_database,
            owner=tool.owner,
        )


def _in_colour(undo: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
    if not is_async or inspect.iscoroutinefunction(undo):
        return undo

    async def coloured(*args: Any, **kwargs: Any) -> Any:
        said = undo(*args, **kwargs)
        return await said if inspect.isawaitable(said) else said

    return coloured


def _fingerprint(policy: Compensation) -> str:
    """Eight characters that change when the undo, or who decides on it, does."""
    own = next((p for p in policy.policies if p.stage is Stage.APPROVAL), policy.ask)
    shape = [getattr(own, n, None) for n in ("when", "rule", *_OPTIONS)]
    told = [getattr(item, "__qualname__", str(item)) for item in (policy.name, *shape)]
    return sha256(dumps(told).encode()).hex()[:8]
