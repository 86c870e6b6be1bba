"""Artifacts that cost something to make: made once for each content, version and tenant."""

from __future__ import annotations

import functools
import inspect
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import _metrics, durations
from ._content import content
from ._isolated import INSIDE
from ._meter import OPEN
from ._runtime import AsyncioRuntime, InlineRuntime, Runtime, run_inline
from .canonical import keyed_hash
from .codec import MAX_RESULT_BYTES, NotStorable, decode, encode
from .declaration import DEFAULT_GUARD, declaration_of
from .errors import ConfigurationError, ContractViolation, StoreUnavailable
from .ledger import artifacts
from .ledger.artifacts import Kept, Made
from .ledger.values import Draft
from .model import nanos
from .run import active_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from .artifacts import Artifacts
    from .ledger.artifacts import Name
    from .run import Run

F = TypeVar("F", bound="Callable[..., Any]")
_LONGEST = 200
_MICROS = 1_000_000
_LOG = logging.getLogger("agentguard")


@dataclass(frozen=True, slots=True)
class _Policy:
    """What a `cached` says."""

    kind: str
    version: str
    key: Callable[..., Any] | None
    ttl_us: int | None
    cost: Any
    max_bytes: int


def cached(
    kind: str, *, version: str, key: Callable[..., Any] | None = None,
    ttl: str | float | None = None, cost: Any = None, max_bytes: int = MAX_RESULT_BYTES,
) -> Callable[[F], F]:  # fmt: skip
    """Make what a function derives once for each content, and answer from the store after that.

    It is for functions without effects whose results depend on their arguments and the version
    alone: summaries, extracted entities, embeddings. It is kept for the tenant of the run in which
    the function is called, or else of the configured guard's principal; no tenant gets another's.

    Args:
        kind: what it makes, such as `summary`.
        version: of the prompt and the model; another one makes everything anew.
        key: called with the function's arguments, returns what the result depends on; all of the
            arguments by default.
        ttl: how long it is kept: `7d` or seconds; without it until it is pruned.
        cost: what making one costs in US dollars, or a callable(result) that says it; by default
            what the run has spent meanwhile.
        max_bytes: a larger result is returned and not kept.

    Raises:
        ConfigurationError: an option makes no sense, or the function is a guarded tool.
    """
    policy = _Policy(
        _word(kind, "kind"), _word(version, "version"), key, _micros(ttl), _cost(cost),
        _size(max_bytes),
    )  # fmt: skip

    def decorate(function: F) -> F:
        return cast("F", _wrapped(function, policy))

    return decorate


def _word(text: Any, what: str) -> str:
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        raise ConfigurationError(f"cached: {what} is a text of 1 to {_LONGEST} characters")
    return text


def _micros(ttl: Any) -> int | None:
    if ttl is None:
        return None
    number = durations.seconds(ttl, "cached: ttl") if isinstance(ttl, str) else ttl
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 10**10:
        raise ConfigurationError(f"cached: ttl={ttl!r} is neither 7d nor a number of seconds")
    return int(number * _MICROS)


def _cost(cost: Any) -> Any:
    return cost if cost is None or callable(cost) else nanos(cost)


def _size(most: Any) -> int:
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ConfigurationError(f"cached: max_bytes={most!r} is not a number from 1")
    return most


def _wrapped(function: Any, policy: _Policy) -> Any:
    _check(function, policy)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def sync(*args: Any, **kwargs: Any) -> Any:
        use = _use(policy, function, signature, args, kwargs)
        if use is None:
            return function(*args, **kwargs)
        if run_inline(use.look(InlineRuntime())):
            return use.value
        made = function(*args, **kwargs)
        return run_inline(use.keep(InlineRuntime(), made))

    @functools.wraps(function)
    async def on_loop(*args: Any, **kwargs: Any) -> Any:
        use, runtime = _use(policy, function, signature, args, kwargs), AsyncioRuntime()
        if use is None:
            return await function(*args, **kwargs)
        if not await use.look(runtime):
            made = await function(*args, **kwargs)
            await use.keep(runtime, made)
        runtime.check_cancelled()
        return use.value

    return on_loop if inspect.iscoroutinefunction(function) else sync


def _check(function: Any, policy: _Policy) -> None:
    name = getattr(function, "__qualname__", repr(function))
    if declaration_of(function) is not None:
        raise ConfigurationError(
            f"cached {policy.kind}: {name} is a guarded tool: put cached beneath its decorators, on"
            " what derives"
        )
    if name.endswith("<lambda>"):
        raise ConfigurationError(
            f"cached {policy.kind}: a lambda has no name to be kept under; make it a def"
        )
    if not inspect.isfunction(function) and not inspect.isbuiltin(function):
        raise ConfigurationError(f"cached {policy.kind}: {name} is no function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"cached {policy.kind}: {name} gives a stream: put cached on a function that returns"
        )


def _use(
    policy: _Policy, function: Any, signature: inspect.Signature, args: Any, kwargs: Any
) -> _Use | None:
    """Return one use of a cached function; None where the store is not to be asked."""
    if OPEN.get() is not None or INSIDE:  # the transaction, or the process, is a tool's own
        return None
    made_of: Any
    if policy.key is None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        made_of = dict(bound.arguments)
    else:
        made_of = policy.key(*args, **kwargs)
    where = f"cached {policy.kind}"
    told = content([function.__module__, function.__qualname__, made_of], where)
    run = active_run()
    guard: Any = DEFAULT_GUARD[0]() if run is None else run.guard
    tenant = (guard if run is None else run).principal.tenant
    try:
        secret = guard.artifacts.key(tenant) if run is None else run.hash_key
    except StoreUnavailable as error:
        _unavailable(policy.kind, error)
        return None
    name = (tenant, policy.kind, policy.version, keyed_hash(secret, told))
    return _Use(policy, guard.artifacts, run, name)


def _repeats(run: Run, text: str) -> bool:
    """Return whether *text* holds what a tool of the run declared sensitive."""
    call = run.executed()
    while call is not None:  # a read's arguments are hidden only when it has ended
        run.redact_call(call.tool.name, call.arguments)
        call = call.outer
    scrubbed: str = run.redactor.scrub(text)
    return scrubbed != text


def _unavailable(kind: str, error: StoreUnavailable) -> None:
    _LOG.warning("cached %s goes on without its store: %s", kind, error.message)


class _Use:
    """One call of a cached function.

    Attributes:
        value: what its caller gets.
    """

    def __init__(self, policy: _Policy, shelf: Artifacts, run: Run | None, name: Name) -> None:
        self.policy, self.shelf, self.run, self.name = policy, shelf, run, name
        self.value: Any = None
        self._damaged = False
        self._before = None if run is None else run.usage

    async def look(self, runtime: Runtime) -> bool:
        """Look whether it was made already; what cannot be believed was not."""
        try:
            found = await runtime.look(self.shelf.store, artifacts.look, self.name)
        except StoreUnavailable as error:
            _unavailable(self.policy.kind, error)
            found = None
        hit = found is not None and self._takes(found)
        saved = (found.cost or 0) if hit and found is not None else 0
        due = self.shelf.count(self.name[:3], hit=hit, saved=saved)
        _metrics.artifact(self.policy.kind, "hit" if hit else "miss")
        if hit and found is not None:
            await self._tell(runtime, {"result": "hit", "saved_nanos": found.cost})
            if due:
                await self._write(runtime)
        return hit

    def _takes(self, found: Kept) -> bool:
        why = "it is not as it was written"
        if found.value is not None:
            try:
                self.value = decode(found.value)
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                why = f"{type(error).__name__}: {error}"  # its seal fits: another codec has written it
            else:
                return True
        self._damaged = True
        _LOG.warning(
            "an artifact of the kind %s is made anew (%s): %s",
            self.policy.kind, why, self.name[3][:12],
        )  # fmt: skip
        return False

    async def _write(self, runtime: Runtime) -> None:
        try:
            await self.shelf.write(runtime)
        except StoreUnavailable as error:
            _unavailable(self.policy.kind, error)

    async def keep(self, runtime: Runtime, made: Any) -> Any:
        """Keep what was made, and return what is kept: of two callers at once both get the same.

        Raises:
            ContractViolation: it has no form that comes back as itself.
        """
        text, cost = self._encoded(made), self._made_for(made)
        why = self._not_kept(text)
        self.value = decode(text)
        if why is None:
            why = await self._kept(runtime, text, cost)
        more: dict[str, Any] = {} if why is None else {"kept": why}
        if self._damaged:
            more["damaged"] = True
        await self._tell(runtime, {"result": "miss", "cost_nanos": cost, **more})
        return self.value

    async def _kept(self, runtime: Runtime, text: str, cost: int | None) -> str | None:
        run_id = None if self.run is None else self.run.id
        made = Made(self.name, text, cost, self.policy.ttl_us, run_id)
        try:
            kept = await self.shelf.commit(runtime, artifacts.keep, made)
        except StoreUnavailable as error:
            _unavailable(self.policy.kind, error)
            return "no: the store is not available"
        if kept.value is not None and kept.value != text:
            self.value = decode(kept.value)
        return None

    def _encoded(self, made: Any) -> str:
        try:
            return encode(made).decode()
        except NotStorable as error:
            raise ContractViolation(
                f"cached {self.policy.kind}: the result cannot be kept"
                f" ({str(error).partition(';')[0]}): return plain data"
            ) from None

    def _not_kept(self, text: str) -> str | None:
        size = len(text.encode())
        if size > self.policy.max_bytes:
            return f"no: {size} bytes"
        if self.run is not None and _repeats(self.run, text):
            return "no: it repeats what is sensitive"
        return None

    def _made_for(self, made: Any) -> int | None:
        """Return the nano-dollars that making it took, if that is known."""
        cost = self.policy.cost
        if callable(cost):
            return self._said(cost, made)
        if cost is not None or self.run is None or self._before is None:
            return cast("int | None", cost)
        after = self.run.usage
        spent = after.spent - self._before.spent
        return spent if spent > 0 and after.cost_complete else None

    def _said(self, cost: Callable[[Any], Any], made: Any) -> int | None:
        """Return what a callable says of a result, which is made and paid for, whatever it says."""
        try:
            said = cost(made)
            return None if said is None else nanos(said)
        except Exception as error:  # noqa: BLE001 - told in the log, and not known
            _LOG.warning(
                "what a %s has cost is not known (%s: %s)",
                self.policy.kind, type(error).__name__, error,
            )  # fmt: skip
            return None

    async def _tell(self, runtime: Runtime, fact: dict[str, Any]) -> None:
        """Let the record of the run tell it with its next commit."""
        run = self.run
        if run is None:
            return
        call = run.executed()
        data = {"kind": self.policy.kind, "version": self.policy.version, **fact}
        run.meter.note(Draft("artifact", data, None if call is None else call.step))
        if run.meter.due():
            await run.flush(runtime)


__all__ = ["cached"]
