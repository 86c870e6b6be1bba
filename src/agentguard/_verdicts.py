"""Asks verifiers: cheap ones first, the first no ends it, and a broken verifier is never a yes."""

from __future__ import annotations

import functools
import inspect
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ._contexts import setting
from ._runtime import (
    AsyncioRuntime,
    BodyAbandoned,
    DeadlinePassed,
    ThreadRuntime,
    outcome_of,
    run_inline,
)
from .canonical import jsonable
from .errors import ConfigurationError, VerificationFailed, VerifierUnavailable
from .model import Evidence, Verdict, VerifierIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._runtime import Outcome

KINDS = ("rule", "model", "person")
"""In this order verifiers are asked: what is cheap and certain first."""
_MOST_ARGUMENTS = 3
_LONGEST_REASON = 500


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Asking:
    """What a verifier is asked in; it holds for the models that it calls, too.

    Attributes:
        verifier: who is asked.
        proposers: the models that proposed the call.
        sensitive: the arguments that no model may see.
        scrub: takes what they held out of everything else.
    """

    verifier: str
    proposers: frozenset[str] = frozenset()
    sensitive: frozenset[str] = frozenset()
    scrub: Callable[[Any], Any] = field(default=_as_it_is, repr=False)


ASKING: ContextVar[Asking | None] = ContextVar("agentguard_asking", default=None)
"""The verifier at work here, if one is."""


@dataclass(frozen=True, slots=True)
class Check:
    """One verifier of a tool or a run, as it is asked.

    Attributes:
        ask: the callable that was declared.
        evidence: whether it is given evidence: `no`, `maybe` (it has a default) or `must`.
        minimum: the confidence below which a yes counts as a no.
        timeout: seconds after which it counts as unavailable.
    """

    identity: VerifierIdentity
    ask: Callable[..., Any]
    evidence: str = "no"
    minimum: Decimal | None = None
    timeout: float | None = None

    @property
    def name(self) -> str:
        """What the record calls it."""
        return self.identity.name

    @property
    def is_async(self) -> bool:
        """Whether it can only be asked on an event loop."""
        return is_async(self.ask)


def check_of(
    ask: Any, *, by: str | None = None, minimum: Decimal | None = None,
    timeout: float | None = None,
) -> Check:  # fmt: skip
    """Return a verifier with its identity: its own, or that of a rule named after the callable.

    Raises:
        ConfigurationError: it cannot be called, or says who it is in another form.
    """
    if not callable(ask):
        raise ConfigurationError(
            "verified_by: give at least one callable(arguments, result), or"
            " callable(arguments, result, evidence)"
        )
    name = str(getattr(ask, "__name__", None) or getattr(ask, "name", None) or "verifier")
    if not isinstance(getattr(ask, "identity", None), VerifierIdentity | None):
        raise ConfigurationError(f"{name}: its identity must be a VerifierIdentity")
    identity = _identity(ask) or VerifierIdentity("rule", name)
    own = getattr(ask, "minimum_confidence", None)
    least = max((m for m in (own, minimum) if m is not None), default=None)
    if by is not None:
        identity = replace(identity, name=by)
    return Check(identity, ask, _evidence(ask), least, timeout)


def _identity(ask: Any) -> VerifierIdentity | None:
    """Look through what Python wraps around a callable."""
    seen = ask
    while seen is not None:
        found = getattr(seen, "identity", None)
        if isinstance(found, VerifierIdentity):
            return found
        inner = seen.func if isinstance(seen, functools.partial) else None
        seen = inner or getattr(seen, "__wrapped__", None) or getattr(seen, "__self__", None)
    return None


def is_async(ask: Any) -> bool:
    """Return whether calling *ask* gives an awaitable."""
    inner = ask
    while isinstance(inner, functools.partial):
        inner = inner.func
    call = getattr(type(inner), "__call__", None)  # noqa: B004 - its code, not whether it has one
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call)


def _evidence(ask: Any) -> str:
    try:
        parameters = list(inspect.signature(ask).parameters.values())
    except (TypeError, ValueError):
        return "no"
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(placed) < _MOST_ARGUMENTS:
        return "no"
    third = placed[_MOST_ARGUMENTS - 1]
    if third.default is third.empty:
        return "must"
    return "maybe" if third.name == "evidence" else "no"


def in_order(checks: Sequence[Check]) -> list[Check]:
    """Return *checks* as they are asked: rules, then sets of them, then models, then people."""

    def place(check: Check) -> tuple[int, bool]:
        return KINDS.index(check.identity.kind), getattr(check.ask, "is_set", False)

    return sorted(checks, key=place)


def least(given: Any) -> Decimal | None:
    """Return a minimum of confidence.

    Raises:
        ConfigurationError: it is not from 0 to 1.
    """
    if given is None:
        return None
    found = _confidence(given)
    if found is None:
        raise ConfigurationError(f"minimum_confidence={given!r} is not from 0 to 1")
    return found


def _confidence(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        found = Decimal(str(value))
    except ArithmeticError:
        return None
    return found if found.is_finite() and 0 <= found <= 1 else None


@dataclass(slots=True)
class Verdicts:
    """What the verifiers said, as the record keeps it, and the no that ended the asking."""

    told: list[dict[str, Any]] = field(default_factory=list)
    refuted: VerificationFailed | None = None


async def ask_all(
    checks: Sequence[Check], what: str, given: tuple[Any, Any], evidence: Evidence | None = None,
    *, asking: Asking, on_loop: bool, may_end: Callable[[Check], bool] = lambda _check: True,
) -> Verdicts:  # fmt: skip
    """Ask verifiers in order; the first no ends the asking, and so does a yes that is final.

    Args:
        checks: in the order of `in_order`.
        what: the tool or the run that is verified.
        given: arguments and result.
        evidence: what was seen before and after, if the tool has a reader.
        asking: under what they are asked; the verifier's name is filled in.
        on_loop: whether an event loop runs here.
        may_end: whether a final yes of this verifier suffices.
    """
    found = Verdicts()
    for check in checks:
        verdict = await _answer(check, given, evidence, asking, on_loop=on_loop)
        found.told.append(_told(check, verdict))
        if not verdict.passed:
            sure = None if verdict.confidence is None else str(verdict.confidence)
            told = VerifierUnavailable if verdict.unavailable else VerificationFailed
            found.refuted = told(
                f"{what}: {check.name} says no: {verdict.reason or 'not confirmed'}",
                verifier=check.name, confidence=sure,
            )  # fmt: skip
            break
        if verdict.final and may_end(check):
            break
    return found


def _told(check: Check, verdict: Verdict) -> dict[str, Any]:
    who = check.identity
    return {
        "verifier": who.name, "kind": who.kind, "model": who.model, "owner": who.owner,
        "prompt_version": who.prompt_version, "passed": verdict.passed,
        "confidence": None if verdict.confidence is None else str(verdict.confidence),
        "reason": verdict.reason[:_LONGEST_REASON], "final": verdict.final,
        "unavailable": verdict.unavailable,
        "diff": None if verdict.diff is None else jsonable(dict(verdict.diff), "diff"),
    }  # fmt: skip


async def _answer(
    check: Check, given: tuple[Any, Any], evidence: Evidence | None, asking: Asking, *,
    on_loop: bool,
) -> Verdict:  # fmt: skip
    """Return the verdict as it counts: what broke, or was not sure enough, has not confirmed."""
    parts = given if check.evidence == "no" or evidence is None else (*given, evidence)
    with setting(ASKING, replace(asking, verifier=check.name)):
        said, error = await _called(check, parts, on_loop=on_loop)
    if error is not None:
        return _unavailable(check, error)
    verdict = said if isinstance(said, Verdict) else Verdict(passed=said is True or said is None)
    passed: Any = verdict.passed
    if not isinstance(passed, bool):
        return replace(verdict, passed=False, reason="its verdict is neither True nor False")
    return _sure_enough(check, verdict)


def sync_verdict(check: Check, arguments: Any, result: Any) -> Verdict:
    """Return what a sync verifier says, as it counts."""
    asking = ASKING.get() or Asking(check.name)
    return run_inline(_answer(check, (arguments, result), None, asking, on_loop=False))


async def _called(check: Check, parts: tuple[Any, ...], *, on_loop: bool) -> Outcome:
    """Call the verifier in its own colour and within its time; its end is a value."""
    ask = getattr(check.ask, "asked_on_loop", check.ask) if on_loop else check.ask
    if on_loop and is_async(ask):
        said, error = await AsyncioRuntime().invoke(lambda: ask(*parts), check.timeout)
    elif check.timeout is not None or (on_loop and getattr(ask, "blocks", False)):
        said, error = await _apart(lambda: ask(*parts), check.timeout, on_loop=on_loop)
    else:
        said, error = outcome_of(lambda: ask(*parts))
    if error is None and inspect.isawaitable(said):
        waiting: Any = said
        said, error = await AsyncioRuntime().invoke(lambda: waiting, None)
    if isinstance(error, BodyAbandoned):
        error = error.interrupt
    if error is not None and not isinstance(error, Exception):
        raise error
    return said, error


async def _apart(ask: Callable[[], Any], seconds: float | None, *, on_loop: bool) -> Outcome:
    """Ask in a thread of its own, which is abandoned at the deadline; no event loop waits for it."""

    def wait() -> Outcome:
        return run_inline(ThreadRuntime().invoke(ask, seconds))

    if not on_loop:
        return wait()
    from asyncio import to_thread

    return await to_thread(wait)


def _unavailable(check: Check, error: BaseException) -> Verdict:
    if isinstance(error, DeadlinePassed):
        why = f"it did not answer within {check.timeout} s"
    else:
        why = f"it failed with {type(error).__name__}: {error}"
    return Verdict(passed=False, reason=f"verifier unavailable: {why}", unavailable=True)


def _sure_enough(check: Check, verdict: Verdict) -> Verdict:
    """Rules are certain without saying so; a model that does not say how sure it is, is not."""
    if not verdict.passed or (verdict.confidence is None and check.minimum is None):
        return verdict
    if verdict.confidence is None:
        needs = check.identity.kind == "model"
        why = f"it gave no confidence, {check.minimum} is needed"
        return replace(verdict, passed=False, reason=why) if needs else verdict
    sure = _confidence(verdict.confidence)
    if sure is None:
        why = f"confidence {verdict.confidence} is not from 0 to 1"
        return replace(verdict, passed=False, reason=why)
    if check.minimum is not None and sure < check.minimum:
        why = f"confidence {verdict.confidence} below {check.minimum}"
        return replace(verdict, passed=False, reason=why)
    return verdict
