"""The idempotency room: which calls are the same intent, and what to do when nobody knows."""

from __future__ import annotations

import inspect
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .canonical import jsonable
from .declaration import declare
from .durations import seconds
from .errors import ConfigurationError, ContractViolation
from .tool import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .config import Settings
    from .declaration import F
    from .tool import Call, DoubtPolicy, Tool

Scope = Literal["tenant", "run", "global"]
Paths = tuple[tuple[str, ...], ...]
"""The arguments, or fields inside of them, that a template names."""

_SHORTEST_RETENTION = 7 * 86_400


def idempotent(
    *,
    key: str | Callable[..., Any] | None = None,
    per: Literal["call"] | None = None,
    scope: Scope = "tenant",
    retention: str | None = None,
    reconcile: Callable[..., Any] | None = None,
    on_doubt: DoubtPolicy | None = None,
    downstream_dedupe: str | None = None,
    volatile: Sequence[str] = (),
    same_database: bool = False,
) -> Callable[[F], F]:
    """Declare which calls are one effect.

    Args:
        key: a template over the arguments, such as `refund:{ticket_id}`, or a callable over them;
            equal keys are one effect, whoever calls and however often.
        per: `"call"` makes one effect for each call the model made, for writes that may rightly
            repeat. One of *key* and *per* is required.
        scope: where a key is unique: in the tenant, in one run, or (single-tenant stores only)
            everywhere.
        retention: how long results are kept, such as `30d`; at least 7 days. Keys are kept for
            good.
        reconcile: asked when nobody knows: `hook(call)` returns `Happened(result)`,
            `NotHappened()` or `Unknown()`; it must only read.
        on_doubt: `halt` (default), `reconcile` (default with a hook) or `retry_same_key`.
        downstream_dedupe: how long the backend drops repeats of a key, such as `24h`.
        volatile: arguments that are no part of the intent, left out of the payload hash.
        same_database: the tool writes only through `current_run().call.connection`, into the
            database that holds the record: both are committed together, so that the effect happens
            exactly once. For plain `def` tools without a timeout.

    Raises:
        ConfigurationError: the declaration contradicts itself or names no argument.
    """
    policy = Idempotency(
        key=key,
        per=per,
        scope=scope,
        retention=None if retention is None else seconds(retention, "retention"),
        reconcile=reconcile,
        on_doubt=on_doubt or ("reconcile" if reconcile else "halt"),
        dedupe=None
        if downstream_dedupe is None
        else seconds(downstream_dedupe, "downstream_dedupe"),
        volatile=frozenset([volatile] if isinstance(volatile, str) else volatile),
        same_database=same_database,
    )
    policy.check()
    return lambda function: declare(function, policy)


@dataclass(frozen=True)
class Idempotency:
    """What `idempotent` declares."""

    key: str | Callable[..., Any] | None
    per: Literal["call"] | None
    scope: Scope
    retention: float | None
    reconcile: Callable[..., Any] | None
    on_doubt: DoubtPolicy
    dedupe: float | None
    volatile: frozenset[str]
    same_database: bool = False

    @property
    def stage(self) -> Stage:
        """After the contract: keys are made of checked arguments."""
        return Stage.IDEMPOTENCY

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ConfigurationError: with the sentence that says what to change.
        """
        if (self.key is None) == (self.per is None):
            raise ConfigurationError(
                'idempotent: give key="refund:{ticket_id}" for an intent that must never repeat, or'
                ' per="call" for one that may; exactly one of them'
            )
        if self.per not in (None, "call") or self.scope not in ("tenant", "run", "global"):
            raise ConfigurationError(
                'idempotent: per is "call"; scope is "tenant", "run" or "global"'
            )
        if self.on_doubt not in ("halt", "reconcile", "retry_same_key"):
            raise ConfigurationError(
                'idempotent: on_doubt is "halt", "reconcile" or "retry_same_key"'
            )
        if self.on_doubt == "reconcile" and self.reconcile is None:
            raise ConfigurationError('idempotent: on_doubt="reconcile" needs reconcile=')
        if self.on_doubt == "retry_same_key" and self.dedupe is None:
            raise ConfigurationError(
                'idempotent: on_doubt="retry_same_key" needs downstream_dedupe=, the time for which'
                " the backend drops repeats of a key"
            )
        if self.same_database and (self.reconcile or self.dedupe is not None):
            raise ConfigurationError(
                "idempotent: same_database=True leaves no doubt, so leave out reconcile= and"
                " downstream_dedupe="
            )
        if self.retention is not None and self.retention < _SHORTEST_RETENTION:
            raise ConfigurationError("idempotent: retention is at least 7d")

    def bind(self, tool: Tool, _settings: Settings) -> None:
        """Write the key's clause on the sheet."""
        names = set(tool.parameters)
        for name in self.volatile - names:
            raise ConfigurationError(f"{tool.name}: volatile names {name!r}, which is no argument")
        if self.reconcile is not None and not tool.is_async and _is_async(self.reconcile):
            raise ConfigurationError(f"{tool.name} is sync, so its reconcile hook must be sync")
        tool.volatile, tool.reconcile, tool.on_doubt = self.volatile, self.reconcile, self.on_doubt
        if self.same_database:
            _check_can_share(tool)
        tool.same_database = self.same_database
        tool.dedupe_seconds, tool.per_call = self.dedupe, self.per == "call"
        if isinstance(self.key, str):
            tool.key_fields = _fields_of(self.key, names, tool.name)
        elif self.key is not None:
            tool.key_fields = tool.parameters  # which of them it reads cannot be known
        named = _names(self.key) if isinstance(self.key, str) else []
        paths = tuple(tuple(name.split(".")) for name in named)
        tool.key_of = lambda call: self._key_of(call, paths)

    def _key_of(self, call: Call, paths: Paths) -> tuple[str, Any]:
        """Return the scope and the fields that name the effect."""
        if self.scope == "global" and call.principal.tenant != "default":
            raise ConfigurationError(
                f'{call.tool.name}: scope="global" is for single-tenant stores; use scope="tenant"'
            )
        if self.per == "call":
            return "call", call.place()
        fields = self._fields(call, paths)
        return self.scope, [call.run_id, fields] if self.scope == "run" else fields

    def _fields(self, call: Call, paths: Paths) -> Any:
        if isinstance(self.key, str):
            # The template and its values, not the filled text: "a:b" + "c" is not "a" + "b:c".
            return [self.key, *[_look_up(path, call.plain) for path in paths]]
        made = jsonable(self.key(**call.arguments) if self.key else None, "key")
        if made is None or made == "":
            raise ContractViolation(f"{call.tool.name}: its key callable returned nothing")
        return ["callable", made]


def _check_can_share(tool: Tool) -> None:
    if tool.is_async or tool.isolation is not None or tool.effect != "write":
        raise ConfigurationError(
            f"{tool.name}: same_database=True is for a write that is a plain def without timeout and"
            " isolation: its statements run on the store's own connection, in the caller's thread"
        )


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function)


def _names(template: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]


def _fields_of(template: str, arguments: set[str], tool: str) -> tuple[str, ...]:
    """Return which arguments a template is made of.

    Raises:
        ConfigurationError: it names none, or one that does not exist.
    """
    try:
        names = _names(template)
    except ValueError as error:
        raise ConfigurationError(f"{tool}: key={template!r} is no template: {error}") from None
    roots = tuple(dict.fromkeys(name.split(".")[0] for name in names))
    if not roots:
        raise ConfigurationError(
            f"{tool}: key={template!r} names no argument, so every call would be the same effect"
        )
    for root in roots:
        if root not in arguments:
            raise ConfigurationError(
                f"{tool}: key={template!r} names {root!r}, which is none of its arguments"
                f" ({', '.join(sorted(arguments))})"
            )
    return roots


def _look_up(path: tuple[str, ...], plain: Any) -> Any:
    """Return an argument, or a field inside one, by the parts of its dotted name."""
    found = plain
    for part in path:
        if not isinstance(found, dict) or part not in found:
            raise ContractViolation(
                f"the idempotency key needs {'.'.join(path)}, which this call does not have"
            )
        found = found[part]
    return found
