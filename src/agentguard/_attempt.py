"""Run: one start of the tool's body, and what its end says about the world."""

from __future__ import annotations

import copy
import inspect
import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ._independence import may_end, proposers_of
from ._runtime import BodyAbandoned, DeadlinePassed, Outcome, ResultLost
from ._verdicts import Asking, ask_all
from .canonical import jsonable
from .codec import NotStorable
from .errors import (
    ContractViolation,
    EffectInDoubt,
    GuardError,
    ResultUnavailable,
    ToolTimeout,
)
from .model import EffectState, Evidence, NoEffect, Unknown
from .run import CALL, executing
from .tool import Failure, declared

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._runtime import Runtime
    from .run import Run
    from .tool import Call, Tool

_WHOLE = frozenset({str, int, float, bool, type(None), Decimal})
"""Types whose values nobody can change."""
_FAILED = (EffectState.FAILED_RETRYABLE, EffectState.FAILED_FINAL)
_MOST_EVIDENCE = 64 * 1024
_CONTROL_FLOW = frozenset({"GraphBubbleUp", "WaitingForEvent"})
"""Exceptions by which runtimes steer themselves, by name: the core imports no runtime."""


@dataclass(slots=True)
class End:
    """How one attempt ended: the state to settle, and what the caller gets.

    Attributes:
        error: raised to the caller; None if *value* is returned.
        again: the failure is known to have had no effect and may be tried again.
        wait: seconds that the backend asked to wait before that.
        evidence: what was seen before and after, as the record keeps it.
        body_ended: False while an abandoned thread may still act.
    """

    state: EffectState
    value: Any = None
    error: BaseException | None = None
    doubt: str | None = None
    again: bool = False
    wait: float | None = None
    kept: str | None = None
    result_state: str | None = None
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    evidence: dict[str, Any] | None = None
    body_ended: bool = True

    def facts(self) -> dict[str, Any]:
        """Return what the chain says of the end: no values, no texts."""
        found: dict[str, Any] = {}
        if self.result_state is not None:
            found["result_state"] = self.result_state
        if self.error is not None:
            found["error"] = type(self.error.__cause__ or self.error).__name__
        if not self.body_ended:
            found["body_ended"] = False
        return found

    def content(self) -> dict[str, Any]:
        """Return the result or the error as the record keeps it, beside the chain."""
        seen = {} if self.evidence is None else {"evidence": self.evidence}
        if self.error is not None:
            return {"error": str(self.error)[:1000], **seen}
        return {"result": self.kept, "result_state": self.result_state, **seen}


_OF_THE_TOOL = ("tool_timeout", "effect_in_doubt", "verification_failed", "contract_violation")


def strikes(end: End) -> bool:
    """Return whether an end speaks against its tool: not a no of the backend, nor ours, nor a cancel."""
    if end.state not in (EffectState.FAILED_RETRYABLE, EffectState.IN_DOUBT):
        return False
    error = end.error and (end.error.__cause__ or end.error)
    if error is None:
        return True
    ours = isinstance(error, GuardError) and error.kind not in _OF_THE_TOOL
    return (
        isinstance(error, Exception) and not ours and end.doubt not in ("interrupted", "cancelled")
    )


def retrieved_by(run: Run, call: Call, end: End) -> dict[str, Any]:
    """Return what the end of a retrieval says of its documents; nothing for other calls."""
    if call.retrieved is None or end.error is not None:
        return {}
    scrub = run.redactor.scrub
    return {"documents": [{**found, "id": scrub(found["id"])} for found in call.retrieved]}


def body_of(call: Call, wrapped: Callable[..., Any], instance: Any) -> Callable[[], Any]:
    """Return the tool's body with this call's arguments, to be run inside `current_run().call`."""

    def body() -> Any:
        args, kwargs = call.tool.arguments.place(instance, _own(call.arguments), call.given)
        token = CALL.set(call)
        try:
            return wrapped(*args, **kwargs)
        finally:
            CALL.reset(token)

    async def async_body() -> Any:
        args, kwargs = call.tool.arguments.place(instance, _own(call.arguments), call.given)
        token = CALL.set(call)
        try:
            return await wrapped(*args, **kwargs)
        finally:
            CALL.reset(token)

    return async_body if call.tool.is_async else body


def _own(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return copies: what a body does to its arguments changes no later attempt and no verdict."""
    return {
        name: value if type(value) in _WHOLE else _copied(value)
        for name, value in arguments.items()
    }


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - a type of the tool's own that cannot be copied is shared
        return value


async def attempt(runtime: Runtime, run: Run, call: Call, body: Callable[[], Any]) -> End:
    """Start the body once and judge its end."""
    if call.tool.evidence is not None and (unseen := await _look_before(call)) is not None:
        return unseen
    outcome = await runtime.invoke(body, call.tool.timeout)
    return await judge(run, call, outcome)


async def judge(run: Run, call: Call, outcome: Outcome) -> End:
    """Return what *outcome* says about the world, whatever happens to those who judge it."""
    try:
        end = await _judged(run, call, outcome)
    except Exception as error:  # noqa: BLE001 - a declared callable or a type's own check broke
        broken = EffectInDoubt(
            f"{call.tool.name} ended, but what judges its end broke with {type(error).__name__}",
            reason="not_judged",
        )
        end = _doubtful(call, broken, "not_judged", error)
    except BaseException as error:  # noqa: BLE001 - cancelled while a verifier was asked
        end = End(EffectState.IN_DOUBT, error=error, doubt="cancelled")
    if end.state is EffectState.IN_DOUBT and call.tool.effect == "read":
        end.state, end.doubt = EffectState.FAILED_RETRYABLE, None  # a read has no effect to doubt
    return _repeat_failed(call, end) if call.repeat and end.state in _FAILED else end


def _repeat_failed(call: Call, end: End) -> End:
    """A repeat that had no effect tells nothing of the body before it."""
    doubt = EffectInDoubt(
        f"{call.tool.name} was repeated and that did nothing; whether it had happened before is still"
        " not known",
        reason="repeat_failed",
    )
    found = _doubtful(call, doubt, "repeat_failed", end.error or doubt)
    found.again, found.wait = end.again, end.wait
    return found


async def _judged(run: Run, call: Call, outcome: Outcome) -> End:
    value, error = outcome
    if isinstance(error, ResultLost):
        return _lost(call, error)
    if error is not None:
        return _raised(run, call, error)
    tool = call.tool
    end = _failed_by_value(run, tool, value) if tool.fails_when else None
    if end is not None:
        return end
    try:
        value = tool.results.check(value)
        call.retrieved = tool.documents(value) if tool.documents else None
    except ContractViolation as violation:
        return _doubtful(call, violation, "output_contract", violation)
    end = End(EffectState.SUCCEEDED, value)
    if tool.evidence is not None:
        await _look_after(call, end)
    if tool.checks:
        await _verify(run, call, end)
    _keep(run, tool, end)
    if end.state is EffectState.SUCCEEDED and end.error is not None:
        end.result_state = "refuted"
    return end


def _keep(run: Run, tool: Tool, end: End) -> None:
    """A result that cannot be stored, or would show a secret, does not make the effect unhappen."""
    if tool.documents is not None:
        end.result_state = "not_kept"  # of a retrieval the record holds hashes, never texts
        return
    try:
        end.kept, end.result_state = tool.results.keep(end.value), "stored"
    except NotStorable as error:
        end.result_state = "too_large" if "bytes" in str(error) else "unserialisable"
        return
    if run.redactor.scrub(end.kept) != end.kept:
        end.kept, end.result_state = None, "withheld"


def _raised(run: Run, call: Call, error: BaseException) -> End:
    tool = call.tool
    if isinstance(error, DeadlinePassed | BodyAbandoned):
        return _cut_off(call, error)
    if tool.effect == "read":
        return _read_failed(run, call, error)
    if steers(run, error):
        interrupt = ContractViolation(
            f"{tool.name}: the runtime was interrupted inside a write, so nobody knows whether it"
            " happened; ask before it, with @requires_approval or in a tool of its own"
        )
        return _doubtful(call, interrupt, "interrupted", error)
    if not isinstance(error, Exception):
        return End(EffectState.IN_DOUBT, error=error, doubt="cancelled")
    failure = declared(error, tool.retry) or tool.classify(error)
    if failure.no_effect:
        return _no_effect(failure, error)
    reason = "conflict" if failure.conflict else "error_unclassified"
    doubt = EffectInDoubt(
        f"{tool.name} failed with {type(error).__name__}, which does not tell whether it happened",
        reason=reason,
    )
    return _doubtful(call, doubt, reason, error)


def _cut_off(call: Call, error: DeadlinePassed | BodyAbandoned) -> End:
    tool = call.tool
    if isinstance(error, BodyAbandoned):
        end = End(EffectState.IN_DOUBT, error=error.interrupt, doubt="cancelled")
    else:
        timeout = ToolTimeout(f"{tool.name} did not end within {tool.timeout} s", reason="timeout")
        end = _doubtful(call, timeout, "timeout", timeout)
    end.body_ended = tool.isolation != "thread"
    return end


def _lost(call: Call, error: ResultLost) -> End:
    """Done, but there is nothing to show; what would have to look at the result cannot confirm it."""
    tool = call.tool
    lost = ResultUnavailable(
        f"{tool.name} was done, but its result cannot leave its process: {error}"
    )
    if tool.fails_when or tool.checks:
        return _doubtful(call, lost, "result_lost", lost)
    return End(EffectState.SUCCEEDED, error=lost, result_state="unserialisable")


def _read_failed(run: Run, call: Call, error: BaseException) -> End:
    """A read has no effect, so it may be tried again; refusals and pauses may not."""
    ordinary = isinstance(error, Exception) and not isinstance(error, GuardError)
    said = declared(error, call.tool.retry)
    again = ordinary and not steers(run, error) and (said is None or said.retryable)
    return End(EffectState.FAILED_RETRYABLE, error=error, again=again)


def steers(run: Run, error: BaseException) -> bool:
    """Return whether the agent runtime uses *error* to steer itself."""
    if isinstance(error, GuardError):
        return False
    if run.hosts.are_steered_by(error):
        return True
    return any(kind.__name__ in _CONTROL_FLOW for kind in type(error).__mro__)


def _no_effect(failure: Failure, error: BaseException) -> End:
    state = EffectState.FAILED_FINAL if failure.final else EffectState.FAILED_RETRYABLE
    return End(state, error=error, again=failure.retryable, wait=failure.retry_after)


def _doubtful(call: Call, shown: GuardError, reason: str, cause: BaseException) -> End:
    """What the caller is told is ours; what happened is kept as its cause."""
    if isinstance(shown, EffectInDoubt):
        shown.effect_id = call.idempotency_key
    if cause is not shown:
        shown.__cause__ = cause
    return End(EffectState.IN_DOUBT, error=shown, doubt=reason)


def _failed_by_value(run: Run, tool: Tool, value: Any) -> End | None:
    """Judge a result that says by its value that the tool failed."""
    said = tool.fails_when(value) if tool.fails_when else False
    if said is None or said is False:
        return None
    if isinstance(said, Unknown):
        doubt = EffectInDoubt(
            f"{tool.name} answered with a failure: {said.reason}", reason="answer"
        )
        return End(EffectState.IN_DOUBT, value, doubt, doubt="answer")
    final = isinstance(said, NoEffect) and not said.retryable
    end = End(EffectState.FAILED_FINAL if final else EffectState.FAILED_RETRYABLE, value)
    _keep(run, tool, end)
    return end


async def _look(call: Call) -> Any:
    """Ask the tool's reader how the world is; it sees arguments and connection of the call."""
    reader = call.tool.evidence
    if reader is None:
        return None
    with executing(call):
        seen = reader(_own(call.arguments))
        return await seen if inspect.isawaitable(seen) else seen


async def _look_before(call: Call) -> End | None:
    """Look at the world before the body; what cannot be seen cannot be compared, so it stays."""
    try:
        call.evidence = Evidence(await _look(call))
    except BaseException as error:  # noqa: BLE001 - the body has not begun
        error.add_note(
            f"agentguard: the evidence reader of {call.tool.name} failed, so it did not begin"
        )
        end = End(EffectState.FAILED_RETRYABLE, error=error, again=_may_repeat(error))
        return _repeat_failed(call, end) if call.repeat else end
    return None


def _may_repeat(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, GuardError)


async def _look_after(call: Call, end: End) -> None:
    """Look again; what is done stays done, whatever becomes of the reader."""
    before = call.evidence.before if call.evidence else None
    try:
        call.evidence = Evidence(before, await _look(call))
    except Exception:  # noqa: BLE001 - verifiers see that nothing was seen
        call.evidence = Evidence(before, None)
    end.evidence = {"before": _plain(before), "after": _plain(call.evidence.after)}


def _plain(seen: Any) -> Any:
    """Return evidence as the record keeps it."""
    try:
        plain = jsonable(seen, "evidence")
    except GuardError:
        return f"(a {type(seen).__name__}, which has no JSON form)"
    size = len(json.dumps(plain))
    return plain if size <= _MOST_EVIDENCE else f"({size} bytes, too large to keep)"


async def _verify(run: Run, call: Call, end: End) -> None:
    """Ask the verifiers; an outcome that one of them refuted is in doubt, or is to be undone."""
    tool, duties = call.tool, call.tool.duties
    needs = duties.demanded(call) if duties else "nobody"
    run.redactor.hide(tool.sensitive, call.plain)
    asking = Asking("", proposers_of(run), tool.sensitive, run.redactor.scrub)
    found = await ask_all(
        tool.checks, tool.name, (call.arguments, end.value), call.evidence, asking=asking,
        on_loop=tool.is_async, may_end=lambda check: may_end(check, needs),
    )  # fmt: skip
    end.verdicts, end.error = found.told, found.refuted
    if found.refuted is None:
        return
    undo = tool.compensation
    undone = undo is not None and undo.on_verdict and not tool.same_database
    if undone and tool.effect == "write" and not found.refuted.unavailable:
        return  # it did happen, and is undone
    end.state, end.doubt = EffectState.IN_DOUBT, "verifier_failed"
