"""The frozen values that the rooms hand each other and that operators see."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any, Literal

from .durations import seconds
from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

NANOS = Decimal(10**9)
"""Money is Decimal outside and whole nano-dollars in the store, so that sums stay exact."""

_MOST_ATTEMPTS = 100
_MOST_FAILURES = 100


def nanos(amount: Decimal | int | str) -> int:
    """Return US dollars as nano-dollars, rounded up: a reservation is never too small.

    Raises:
        ConfigurationError: if *amount* is not a finite amount from 0 to 9 billion.
    """
    try:
        value = amount if isinstance(amount, Decimal) else Decimal(str(amount))
        whole = int((value * NANOS).to_integral_value(rounding=ROUND_CEILING))
    except (ArithmeticError, ValueError):
        raise ConfigurationError(f"{amount!r} is not an amount in US dollars") from None
    if not 0 <= whole < 2**63:
        raise ConfigurationError(f"{amount!r} US dollars is not between 0 and 9 billion")
    return whole


def dollars(amount: int) -> Decimal:
    """Return nano-dollars as US dollars."""
    value = Decimal(amount) / NANOS
    return value.quantize(Decimal("0.01")) if value == value.quantize(Decimal("0.01")) else value


def moment(micros: int | None) -> dt.datetime | None:
    """Return microseconds since the epoch as UTC time."""
    if micros is None:
        return None
    return dt.datetime.fromtimestamp(micros / 1_000_000, dt.UTC)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts: never read from a prompt, a tool argument or a graph's state.

    Attributes:
        agent: the agent's stable name or URI (a SPIFFE id fits).
        tenant: whose data and keys are used; nothing crosses tenants.
        subject: the person on whose behalf the agent acts, if any; can never approve its calls.
        version: the agent's version, for the record.
        scopes: what the agent may do; `None` leaves it to the tools' backends.
        model: the id of the model that proposes the agent's calls; no verifier may be of it.
    """

    agent: str = "agent"
    tenant: str = "default"
    subject: str | None = None
    version: str | None = None
    scopes: frozenset[str] | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        for name in ("agent", "tenant"):
            if not getattr(self, name) or not isinstance(getattr(self, name), str):
                raise ConfigurationError(f"Principal: {name} must be a non-empty text")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often to try again after a failure that is known to have had no effect.

    Attributes:
        attempts: tries in all, the first one included.
        wait: seconds before the second try; doubles from there, with full jitter.
        max_wait: the longest wait in seconds.
        on: exception types that the tool declares to have had no effect.
    """

    attempts: int = 3
    wait: float = 0.2
    max_wait: float = 10.0
    on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= _MOST_ATTEMPTS or not 0 <= self.wait <= self.max_wait:
            raise ConfigurationError(
                f"Retry: attempts must be from 1 to {_MOST_ATTEMPTS} and 0 <= wait <= max_wait"
            )


@dataclass(frozen=True, slots=True)
class Circuit:
    """When a tool that fails is left alone, by everybody in its tenant.

    Attributes:
        failures: so many failures within the window open it.
        window: as `1m`.
        cooldown: so long nothing is started; then one call tries whether the tool works again.
    """

    failures: int = 5
    window: str = "1m"
    cooldown: str = "30s"

    def __post_init__(self) -> None:
        if isinstance(self.failures, bool) or not 1 <= self.failures <= _MOST_FAILURES:
            raise ConfigurationError(f"Circuit: failures must be from 1 to {_MOST_FAILURES}")
        seconds(self.window, "Circuit: window")
        seconds(self.cooldown, "Circuit: cooldown")


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many retries the agents of a tenant may make together.

    Attributes:
        percent: of the calls they start.
        burst: so many more, when there were few before.
    """

    percent: int = 10
    burst: int = 10


class NoEffect(Exception):
    """Raised by a tool to say: I failed, and nothing happened.

    Args:
        message: what the caller and the record are told.
        retryable: whether trying the same again can help; if not, the failure is final for
            its key.
    """

    def __init__(self, message: str = "", *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Happened:
    """A reconcile hook's answer: the effect happened, with this result."""

    result: Any = None


@dataclass(frozen=True, slots=True)
class NotHappened:
    """A reconcile hook's answer: the effect did not happen and cannot happen any more."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """It cannot be told whether the effect happened; the doubt stays."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verifier's answer.

    Attributes:
        passed: whether the outcome is confirmed.
        confidence: from 0 to 1, if the verifier has one.
        reason: one sentence.
        diff: what differs from what was expected.
        final: a yes after which nobody else has to be asked.
        unavailable: no answer: the verifier broke, or did not answer in time.
    """

    passed: bool
    confidence: float | None = None
    reason: str = ""
    diff: Mapping[str, Any] | None = None
    final: bool = False
    unavailable: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a tool's evidence reader saw of the world; None where it could not look."""

    before: Any = None
    after: Any = None


@dataclass(frozen=True, slots=True)
class VerifierIdentity:
    """Who verifies; it must be somebody else than who proposed the call.

    Attributes:
        kind: `rule`, `model` or `person`.
        name: as the record shows it.
        model: the id of the model that is asked, for the kind `model`.
        prompt_version: the version of what it is asked.
        owner: the team that answers for this verifier's code.
        others: further models that may answer instead, such as fallbacks.
    """

    kind: Literal["rule", "model", "person"]
    name: str
    model: str | None = None
    prompt_version: str | None = None
    owner: str | None = None
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("rule", "model", "person"):
            raise ConfigurationError(f'{self.name}: kind is "rule", "model" or "person"')
        if (self.kind == "model") != bool(self.model):
            raise ConfigurationError(
                f"{self.name}: a verifier of the kind model names its model, and no other does:"
                ' VerifierIdentity("model", name, model="...")'
            )

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that may answer for it."""
        return (*((self.model,) if self.model else ()), *self.others)


class EffectState(enum.StrEnum):
    """The states of an effect; `agentguard.ledger` holds the table of transitions."""

    AWAITING_APPROVAL = "awaiting_approval"
    DENIED = "denied"
    EXECUTING = "executing"
    SUCCEEDED = "succeeded"
    FAILED_RETRYABLE = "failed_retryable"
    FAILED_FINAL = "failed_final"
    IN_DOUBT = "in_doubt"


@dataclass(frozen=True, slots=True)
class Event:
    """One link of a run's hash chain.

    Attributes:
        seq: its place in the run, from 1.
        at: when, by the store's clock.
        step: the step it belongs to, or None.
        kind: such as `step.started`.
        actor: who caused it, as `agent:support` or `person:dana`.
        data: the facts, without personal values.
        content: personal or bulky values, kept beside the chain and bound to it by a salted
            commitment, so that they can be erased without breaking it.
        hash: SHA-256 over the canonical form of the event and `prev`.
    """

    run_id: str
    seq: int
    at: dt.datetime
    step: int | None
    kind: str
    actor: str
    data: Mapping[str, Any]
    content: Mapping[str, Any] | None
    prev: str
    hash: str


@dataclass(frozen=True, slots=True)
class Decision:
    """One person's vote on an approval."""

    person: str
    decision: str
    roles: tuple[str, ...]
    reason: str
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Approval:
    """A call that waits, or waited, for people.

    Attributes:
        id: what `agentguard approvals approve` takes; a unique beginning is enough.
        status: pending, approved, rejected, expired, used or superseded.
        arguments: what will run, with declared sensitive arguments hidden.
        rule: the text of the rule that asked for a person.
        generation: counts up when the call is edited or asked anew.
        edits: arguments that an editor changed, and to what.
        input_schema: JSON Schema of the tool's arguments, against which edits are checked.
        stage: `draft` or `propose` if a person executes the call; None if the agent makes it.
    """

    id: str
    tenant: str
    status: str
    tool: str
    arguments: Mapping[str, Any]
    rule: str
    run_id: str
    step: int
    requested_by: str
    on_behalf_of: str | None
    generation: int
    roles: tuple[str, ...]
    quorum: int
    allow_edit: bool
    created_at: dt.datetime
    expires_at: dt.datetime
    effect_id: str
    payload_hash: str
    contract_version: str
    policy_version: str
    decisions: tuple[Decision, ...] = ()
    edits: Mapping[str, Any] | None = None
    edited_by: str | None = None
    input_schema: Mapping[str, Any] | None = None
    stage: str | None = None

    def reason(self) -> str:
        """Return the reason of the last decision, or nothing."""
        return self.decisions[-1].reason if self.decisions else ""


@dataclass(frozen=True, slots=True)
class Effect:
    """One row of the effect ledger.

    Attributes:
        id: the idempotency key that went downstream, which names the effect everywhere.
        kind: `write`, or `read` for a read that needed a decision or a budget.
        state: see `EffectState`.
        fence: counts the starts of the tool body.
        doubt_reason: why it is in doubt, if it is.
        result_state: stored, too_large, unserialisable or none; refuted or undone.
        error: what the tool said when it failed.
        late: an answer that arrived after somebody else had taken over; evidence, not truth.
    """

    id: str
    tenant: str
    tool: str
    kind: str
    scope: str
    state: EffectState
    run_id: str
    step: int
    fence: int
    attempt: int
    payload_hash: str
    contract_version: str
    doubt_reason: str | None
    result_state: str | None
    result: Any
    error: Mapping[str, Any] | None
    approval_id: str | None
    cost_usd: Decimal
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    owner: str | None
    undo: str | None
    call_id: str | None = None
    late: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run has ended safely instead of doing what it was about to do.

    Attributes:
        kind: `draft`, `ticket`, `ask`, or the name of a fallback of the user's own.
        reference: what names it: the ticket's number, or run and step of the draft.
        text: the question, or what a fallback of the user's own said.
        cause: the kind of the error that led to it.
        tool: the call that was not made, or nobody knows of, with its *arguments* (sensitive ones
            hidden).
        step: the step of that call.
        why: for a draft that stands for another ending: why that could not be had.
        answer: what *answered_by* said to a question; the run may write again since.
    """

    kind: str
    reference: str = ""
    text: str = ""
    cause: str = ""
    tool: str = ""
    step: int | None = None
    arguments: Mapping[str, Any] | None = None
    why: str = ""
    answered_by: str | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """The budget of a run; None leaves a limit out. Money is in nano-dollars here.

    Of *loops*, None is the usual number of rounds and 0 lets every loop go on.
    """

    max_steps: int | None = None
    max_model_calls: int | None = None
    max_tool_calls: int | None = None
    max_spend: int | None = None
    max_seconds: float | None = None
    max_repeats: int | None = None
    loops: int | None = None


@dataclass(frozen=True, slots=True)
class HumanCosts:
    """What people's time costs; None where it is not known.

    Attributes:
        nanos_per_hour: of one person, in nano-dollars.
        minutes_per_decision: what one decision on a waiting call takes.
    """

    nanos_per_hour: int | None = None
    minutes_per_decision: Decimal | None = None

    def nanos(self, minutes: Decimal) -> int | None:
        """Return what so many minutes cost, rounded up."""
        if self.nanos_per_hour is None:
            return None
        return int((self.nanos_per_hour * minutes / 60).to_integral_value(ROUND_CEILING))


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run has used; money in nano-dollars, *held* is reserved and not yet settled.

    *cost_complete* is False once something was spent whose price nobody knows.
    """

    steps: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    spent: int = 0
    held: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_complete: bool = True


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run as operators see it.

    Attributes:
        status: running, waiting, succeeded, failed, halted or cancelled.
        part: how often it was entered; 2 means resumed once.
    """

    id: str
    tenant: str
    workflow: str
    status: str
    part: int
    agent: str
    on_behalf_of: str | None
    started_at: dt.datetime
    updated_at: dt.datetime
    finished_at: dt.datetime | None
    steps: int
    model_calls: int
    tool_calls: int
    spent_usd: Decimal
    held_usd: Decimal
    input_tokens: int
    output_tokens: int
    limits: Limits = field(default_factory=Limits)
    policy_version: str = ""
    error: str | None = None
    cost_complete: bool = True
    ending: Ending | None = None
