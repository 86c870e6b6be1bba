"""What a run's record says, as frozen values: steps, and all that belongs to one."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

StepKind = Literal["model", "read", "write", "other"]
NOTHING = Decimal("0.00")
LOST = "owner_lost"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a call's body.

    Attributes:
        number: 1 for the first try of this delivery of the call.
        fence: counts the starts under the call's key, in every run.
        ended_at: None while it runs; when its process was lost, the time at which that was seen.
        outcome: succeeded, failed_retryable, failed_final or in_doubt.
        error: the type of what the body raised, or `owner_lost`.
    """

    number: int
    fence: int
    began_at: dt.datetime
    ended_at: dt.datetime | None = None
    outcome: str | None = None
    error: str | None = None

    @property
    def lost(self) -> bool:
        """Whether its process vanished; how long the body worked is not known then."""
        return self.error == LOST


@dataclass(frozen=True, slots=True)
class Vote:
    """What one person said about a waiting call.

    Attributes:
        decision: approve, reject or edit; an edit is no vote, it begins a new generation.
        changed: the arguments that an edit changed.
    """

    person: str
    decision: str
    at: dt.datetime
    generation: int
    roles: tuple[str, ...] = ()
    reason: str = ""
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A call put before people.

    Attributes:
        payload_hash: what the last generation would run.
        decided_at: when it was answered, one way or the other; None while it waits.
        status: pending, approved, rejected, expired or used.
        executed_hash: the payload whose start used the approval up.
        stage: `draft` or `propose` where a person executes the call; None where the agent makes it.
    """

    approval_id: str
    rule: str
    payload_hash: str
    asked_at: dt.datetime
    generation: int = 1
    roles: tuple[str, ...] = ()
    quorum: int = 1
    status: str = "pending"
    decided_at: dt.datetime | None = None
    votes: tuple[Vote, ...] = ()
    executed_hash: str | None = None
    stage: str | None = None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A repeat of the call that got the recorded end; nothing ran."""

    at: dt.datetime
    first_run: str
    first_step: int
    call_id: str | None


@dataclass(frozen=True, slots=True)
class Checked:
    """What one verifier said.

    Attributes:
        kind: rule, model or person.
        model: the model that was asked, and *prompt_version* of what.
        owner: the team that answers for the verifier.
        final: nobody else had to be asked after this yes.
        unavailable: it said nothing, which is a no.
        diff: what differed; None where nothing did, or it is no longer kept.
    """

    verifier: str
    passed: bool
    reason: str
    confidence: str | None
    kind: str = "rule"
    model: str | None = None
    prompt_version: str | None = None
    owner: str | None = None
    final: bool = False
    unavailable: bool = False
    diff: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Retrieved:
    """One document that a retrieval returned.

    Attributes:
        id: what its store calls it, if it has a name.
        score: as the retriever gave it, as text.
        sha256: of its text in UTF-8; None for what has no text.
    """

    id: str | None
    score: str | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Ruled:
    """How a doubt was resolved; *by* is an actor such as `person:dana` or `system:reconcile`."""

    at: dt.datetime
    by: str
    ruling: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """A call that was not started because a budget had no room for it.

    Attributes:
        after: the last step before it, where a transaction counted it.
        what: the tool or model, if the record tells.
        budget: the limit, such as `max_steps`, or the kind of error that stopped it.
    """

    at: dt.datetime
    after: int | None
    what: str | None
    budget: str
    limit: str
    used: str


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run.

    Attributes:
        name: the tool or the model.
        outcome: succeeded, failed, failed_retryable, failed_final, in_doubt, executing, waiting,
            drafted (a person may execute it), approved (not started yet), rejected, expired,
            refused, duplicate, or open: a model call without an end on record.
        actor: who caused its first event.
        ended_at: None while nothing has ended it.
        decision: allow, ask or deny.
        refusal: kind of the error that refused it.
        detail: why it was refused, or what the error said.
        content: whether arguments and result are still kept beside the chain.
        cost_usd: what was spent; None when the model's price is not known, or the tool's.
        held_usd: what is reserved and neither spent nor given back.
        retrieved: the documents a retrieval returned, best first; None if it was none.
        evidence: what was seen of the world before and after, if somebody looked.
        budgets: budgets other than the run's that it used: name, span, US dollars.
        prompt: of a model call: the prompt's name, and its version behind an @, if anybody said so.
        price: of a model call: who says what it cost, and the version of that.
        events: sequence numbers of its events.
        plan: `outside` or `out of order`, if it stood so to the run's plan.
        plan_step: the step of the plan that it used up.
    """

    number: int
    began_at: dt.datetime
    kind: StepKind = "other"
    name: str = ""
    outcome: str = "open"
    actor: str = ""
    ended_at: dt.datetime | None = None
    call_id: str | None = None
    decision: str | None = None
    rule: str | None = None
    policy: str | None = None
    contract: str | None = None
    payload_hash: str | None = None
    key: str | None = None
    arguments: Any = None
    result: Any = None
    result_state: str | None = None
    refusal: str | None = None
    detail: str | None = None
    doubt: str | None = None
    content: bool = False
    questions: tuple[Question, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    verdicts: tuple[Checked, ...] = ()
    retrieved: tuple[Retrieved, ...] | None = None
    evidence: Mapping[str, Any] | None = None
    rulings: tuple[Ruled, ...] = ()
    cost_usd: Decimal | None = NOTHING
    held_usd: Decimal = NOTHING
    budgets: tuple[tuple[str, str, Decimal], ...] = ()
    tokens: Mapping[str, int] = field(default_factory=dict[str, int])
    late: Mapping[str, Any] | None = None
    events: tuple[int, ...] = ()
    plan: str | None = None
    plan_step: int | None = None
    prompt: str | None = None
    price: str | None = None

    def worked(self) -> dt.timedelta:
        """Return how long its bodies, or the model, are known to have worked."""
        known = [a.ended_at - a.began_at for a in self.attempts if a.ended_at and not a.lost]
        if self.kind == "model" and self.ended_at:
            known.append(self.ended_at - self.began_at)
        return sum(known, dt.timedelta())

    def waited(self, now: dt.datetime) -> dt.timedelta:
        """Return how long people were waited for, up to *now* where they still are."""
        return sum(
            ((q.decided_at or self.ended_at or now) - q.asked_at for q in self.questions),
            dt.timedelta(),
        )
