"""What can go wrong with a guarded call, and what the model is told about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class GuardError(RuntimeError):
    """The root of every refusal and failure that agentguard raises.

    It is a `RuntimeError` because LangGraph's default `RetryPolicy` retries exceptions it does
    not know and leaves `RuntimeError` alone: a refusal must not be retried behind our back.

    Attributes:
        retryable: whether the same call may succeed later without anything else changing.
        halts: whether the run should stop instead of handing the error to the model.
        run_id: the run in which it happened, if any.
        step: the step of that run, if one was given out.
        told: metrics have counted it; it passes every call around the one that it ended.
    """

    kind: ClassVar[str] = "guard_error"
    retryable: ClassVar[bool] = False
    halts: ClassVar[bool] = False
    advice: ClassVar[str] = "Do not repeat this call. Tell the user what happened and stop."
    told = False

    def __init__(self, message: str, *, run_id: str | None = None, step: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.run_id = run_id
        self.step = step

    def __repr__(self) -> str:
        # LangGraph's handle_tool_errors=True shows repr(error) to the model.
        return self.for_model()

    def details(self) -> Mapping[str, Any]:
        """Return the extra fields that `for_model` shows; none by default."""
        return {}

    def for_model(self) -> str:
        """Return one small JSON object for the model: what happened and what to do instead.

        It carries no argument values, no result and no stack trace.
        """
        shown = {
            "error": self.kind,
            "message": self.message[:500],
            "retryable": self.retryable,
            "advice": self.advice,
            **self.details(),
        }
        return json.dumps(shown, ensure_ascii=True)


class ConfigurationError(GuardError):
    """Something was declared or configured wrongly; the sentence says what to change."""

    kind = "configuration_error"
    halts = True


class ContractViolation(GuardError):
    """Arguments or a result do not fit the tool's contract."""

    kind = "contract_violation"
    advice = "Correct the arguments as the message says, then call the tool once more."


class PermissionDenied(GuardError):
    """The principal may not do this."""

    kind = "permission_denied"
    advice = "You may not do this. Do not try again or around it; tell the user."


class ForbiddenAction(PermissionDenied):
    """The tool is declared `effect="forbidden"`."""

    kind = "forbidden_action"


class ApprovalRequired(GuardError):
    """A person has to decide before the call may start.

    Attributes:
        approval: the pending approval.
    """

    kind = "approval_required"
    advice = "A person has to decide. Do not call the tool again; say that you are waiting."

    def __init__(self, message: str, *, approval: Any, **where: Any) -> None:
        super().__init__(message, **where)
        self.approval = approval

    def details(self) -> Mapping[str, Any]:
        """Name the approval that is waited for."""
        return {"approval_id": self.approval.id, "expires_at": self.approval.expires_at.isoformat()}


class ApprovalRejected(GuardError):
    """A person said no; the call never runs.

    Attributes:
        approval: the rejected approval.
    """

    kind = "approval_rejected"
    advice = "A person said no. Do not repeat the call; take their reason into account."

    def __init__(self, message: str, *, approval: Any = None, **where: Any) -> None:
        super().__init__(message, **where)
        self.approval = approval


class ApprovalExpired(GuardError):
    """Nobody decided in time; the call did not run."""

    kind = "approval_expired"
    advice = "Nobody decided in time. Tell the user; a new call asks again."


class DecisionRefused(GuardError):
    """A decision or ruling that cannot be taken as it was given; nothing was changed."""

    kind = "decision_refused"


class BudgetExceeded(GuardError):
    """The call would cross a limit, so it was not started.

    Attributes:
        budget: the name of the limit, such as `max_steps`.
        limit: the limit, as text.
        used: what was used or held before this call, as text.
    """

    kind = "budget_exceeded"
    halts = True
    advice = "The budget of this run is used up. Stop now and report what is done."

    def __init__(
        self, message: str, *, budget: str = "", limit: str = "", used: str = "", **where: Any
    ) -> None:
        super().__init__(message, **where)
        self.budget, self.limit, self.used = budget, limit, used

    def details(self) -> Mapping[str, Any]:
        """Name the limit and how much of it is used."""
        return {"budget": self.budget, "limit": self.limit, "used": self.used}


class LoopDetected(BudgetExceeded):
    """The same call, or a few that take turns, came again and again without progress.

    Attributes:
        pattern: how the calls repeat each other, such as `same call` or `alternation`.
        steps: the steps of the calls before it.
    """

    kind = "loop_detected"
    advice = "You repeat the same call. Stop, or do something different."

    def __init__(
        self, message: str, *, pattern: str = "same call", steps: Sequence[int] = (), **where: Any
    ) -> None:
        super().__init__(message, **where)
        self.pattern, self.steps = pattern, tuple(steps)

    def details(self) -> Mapping[str, Any]:
        """Name the limit, the pattern and the steps."""
        return {**super().details(), "pattern": self.pattern, "steps": list(self.steps)}


class IdempotencyConflict(GuardError):
    """A key came again with other arguments (guarantee G4; HTTP 422 in the IETF draft)."""

    kind = "idempotency_conflict"
    advice = "This was already done or begun with other arguments. Do not call again; ask a person."


class EffectInProgress(GuardError):
    """The same effect is being executed by somebody else (HTTP 409 in the IETF draft)."""

    kind = "effect_in_progress"
    retryable = True
    advice = "The same action is running. Do not start it again; go on with something else."


class EffectInDoubt(GuardError):
    """It is not known whether the effect happened (guarantee G3). It is listed and waits.

    Attributes:
        effect_id: what `agentguard effects resolve` takes.
        reason: why it is in doubt, such as `owner_lost` or `timeout`.
    """

    kind = "effect_in_doubt"
    advice = "Nobody knows yet whether this happened. Do not repeat it; tell the user, then stop."

    def __init__(
        self, message: str, *, effect_id: str = "", reason: str = "", **where: Any
    ) -> None:
        super().__init__(message, **where)
        self.effect_id, self.reason = effect_id, reason

    def details(self) -> Mapping[str, Any]:
        """Name the effect and the reason of the doubt."""
        return {"effect_id": self.effect_id, "reason": self.reason}


class EffectRecordingFailed(EffectInDoubt):
    """The tool returned, but its outcome could not be written down.

    Attributes:
        result: what the tool returned; it is lost with this exception.
    """

    kind = "effect_recording_failed"
    halts = True

    def __init__(self, message: str, *, result: Any = None, **where: Any) -> None:
        super().__init__(message, **where)
        self.result = result


class ResultUnavailable(GuardError):
    """The effect happened earlier, but its result cannot be shown again."""

    kind = "result_unavailable"
    advice = "This was already done; its result is not kept. Do not repeat it; look it up."


class ToolFailed(GuardError):
    """A recorded final failure, shown again for the same key. Nothing happened then or now."""

    kind = "tool_failed"
    advice = "This failed for good and changed nothing. Do not repeat it with these arguments."


class VerificationFailed(GuardError):
    """The tool ran, but a verifier did not confirm its outcome.

    Attributes:
        verifier: the verifier that said no.
        confidence: how sure it was, as text, if it said so.
        unavailable: it said nothing: it broke, or did not answer in time.
    """

    kind = "verification_failed"
    unavailable: ClassVar[bool] = False
    advice = "The action ran but its outcome was not confirmed. Do not repeat it; tell the user."

    def __init__(
        self, message: str, *, verifier: str = "", confidence: str | None = None, **where: Any
    ) -> None:
        super().__init__(message, **where)
        self.verifier, self.confidence = verifier, confidence

    def details(self) -> Mapping[str, Any]:
        """Name the verifier, and whether it was there at all."""
        return {"verifier": self.verifier, "unavailable": self.unavailable}


class VerifierUnavailable(VerificationFailed):
    """The tool ran, and a verifier that should confirm its outcome broke or did not answer."""

    kind = "verifier_unavailable"
    unavailable = True
    advice = "The action ran and nobody could check it. Do not repeat it; tell the user, then stop."


class ToolTimeout(EffectInDoubt):
    """The deadline passed; a write is in doubt until its late answer or a ruling."""

    kind = "tool_timeout"


class RateLimited(GuardError):
    """The tool's rate limit is used up for now.

    Attributes:
        retry_after: seconds until a call may start.
    """

    kind = "rate_limited"
    retryable = True
    advice = "Too many calls. Wait as long as retry_after says before calling again."

    def __init__(self, message: str, *, retry_after: float = 0.0, **where: Any) -> None:
        super().__init__(message, **where)
        self.retry_after = retry_after

    def details(self) -> Mapping[str, Any]:
        """Say how many seconds to wait."""
        return {"retry_after": round(self.retry_after, 3)}


class CircuitOpen(RateLimited):
    """The tool fails too often at present; nothing is started until a probe has succeeded."""

    kind = "circuit_open"
    advice = "The tool is failing for everybody. Do something else, or stop; do not call it again."


class EffectUndone(GuardError):
    """The effect happened earlier and was undone since; its key starts nothing any more.

    Attributes:
        effect_id: the effect that was undone.
    """

    kind = "effect_undone"
    advice = "This was done and then undone. Do not repeat it; tell the user."

    def __init__(self, message: str, *, effect_id: str = "", **where: Any) -> None:
        super().__init__(message, **where)
        self.effect_id = effect_id

    def details(self) -> Mapping[str, Any]:
        """Name the effect."""
        return {"effect_id": self.effect_id}


class ActionDrafted(GuardError):
    """The agent may not do this by itself: it was written down, and a person may execute it later.

    Attributes:
        approval: the draft or proposal, as `guard.approvals` shows it.
        stage: `draft` or `propose`.
    """

    kind = "action_drafted"
    advice = "It is written down for a person and did not happen. Do not repeat it; go on."

    def __init__(
        self, message: str, *, approval: Any = None, stage: str = "draft", **where: Any
    ) -> None:
        super().__init__(message, **where)
        self.approval, self.stage = approval, stage

    def details(self) -> Mapping[str, Any]:
        """Name the draft and its stage."""
        return {"stage": self.stage, **({"approval_id": self.approval.id} if self.approval else {})}


class FellBack(GuardError):
    """The run ended safely instead: a draft, a ticket or a question; nothing more is written in it.

    Attributes:
        ending: `draft`, `ticket`, `ask`, or the name of the fallback that was called.
        reference: what names the ending, such as a ticket's number.
        cause_kind: the kind of the error that led to it.
    """

    kind = "fell_back"
    halts = True
    advice = "The run has ended safely. Stop now: nothing more can be written in it."

    def __init__(
        self, message: str, *, ending: str = "", reference: str = "", cause_kind: str = "",
        **where: Any,
    ) -> None:  # fmt: skip
        super().__init__(message, **where)
        self.ending, self.reference, self.cause_kind = ending, reference, cause_kind

    def details(self) -> Mapping[str, Any]:
        """Name the ending and what led to it."""
        return {"ending": self.ending, "reference": self.reference, "because": self.cause_kind}


class PlanViolation(GuardError):
    """The call is not in the plan of this run, and the plan refuses what it does not name."""

    kind = "plan_violation"
    advice = "This is not in the plan of this run. Keep to the plan, or stop and say why."


class RunHalted(GuardError):
    """The run, or a switch above it, was stopped; nothing more starts in it."""

    kind = "run_halted"
    halts = True
    advice = "This was stopped, by a person or by its own safe ending. Stop now."


class StoreUnavailable(GuardError):
    """The store could not answer; writes do not start without a record (guarantee G6).

    Attributes:
        uncertain: what was to be written may have been; otherwise nothing was.
    """

    kind = "store_unavailable"
    retryable = True
    halts = True
    advice = "The record cannot be written, so nothing was started. Stop and report this."

    def __init__(
        self, message: str, *, uncertain: bool = False, run_id: str | None = None,
        step: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message, run_id=run_id, step=step)
        self.uncertain = uncertain
