"""A run's events as the steps that people read: what was asked, decided, done and served again.

Theory of operation. Every event names its step, and a step belongs to one call, so a step is the
fold of its events in order. Two things stand beside that: a call over the run's budget gets no
step of its own and is told on the last one (`stops`), and a model call is written down when it
ends, so a number without events is a call without an end on record.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from .model import dollars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .model import Event

StepKind = Literal["model", "read", "write", "other"]
_NOTHING = Decimal("0.00")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a call's body.

    Attributes:
        number: 1 for the first try of this delivery of the call.
        fence: counts the starts under the call's key, in every run.
        ended_at: None while it runs, or for ever if its process was lost.
        outcome: succeeded, failed_retryable, failed_final or in_doubt.
        error: the type of what the body raised.
    """

    number: int
    fence: int
    began_at: dt.datetime
    ended_at: dt.datetime | None = None
    outcome: str | None = None
    error: str | None = None


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


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A repeat of the call that got the recorded end; nothing ran."""

    at: dt.datetime
    first_run: str
    first_step: int
    call_id: str | None


@dataclass(frozen=True, slots=True)
class Checked:
    """What one verifier said."""

    verifier: str
    passed: bool
    reason: str
    confidence: str | None


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
        after: the last step before it, if any.
        what: the tool or model, if the record tells.
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
            approved (not started yet), rejected, expired, refused, duplicate, or open: a model
            call without an end on record.
        actor: who caused its first event.
        ended_at: None while nothing has ended it.
        decision: allow, ask or deny.
        refusal: kind of the error that refused it.
        detail: why it was refused, or what the error said.
        content: whether arguments and result are still kept beside the chain.
        cost_usd: what was spent; None when the model's price is not known.
        held_usd: what is reserved and neither spent nor given back.
        budgets: budgets other than the run's that it used: name, span, US dollars.
        events: sequence numbers of its events.
    """

    number: int
    kind: StepKind = "other"
    name: str = ""
    outcome: str = "open"
    actor: str = ""
    began_at: dt.datetime = dt.datetime.fromtimestamp(0, dt.UTC)
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
    rulings: tuple[Ruled, ...] = ()
    cost_usd: Decimal | None = _NOTHING
    held_usd: Decimal = _NOTHING
    budgets: tuple[tuple[str, str, Decimal], ...] = ()
    tokens: Mapping[str, int] = field(default_factory=dict[str, int])
    late: Mapping[str, Any] | None = None
    events: tuple[int, ...] = ()


def fold(events: Iterable[Event], count: int = 0) -> list[Step]:
    """Return the steps that a run's *events* tell of, by number.

    Args:
        events: of one run, in order.
        count: how many steps the run has counted; numbers without events become open steps.
    """
    drafts: dict[int, _Draft] = {}
    last: dt.datetime | None = None
    for event in events:
        if event.step is not None and event.kind != "budget.exceeded":
            drafts.setdefault(event.step, _Draft(event)).take(event)
        last = event.at
    steps = {number: draft.step() for number, draft in drafts.items()}
    if last is not None:
        for number in range(1, max(count, *steps, 0) + 1):
            steps.setdefault(number, Step(number, "model", "a model call", began_at=last))
    return [steps[number] for number in sorted(steps)]


def stops(events: Iterable[Event]) -> list[Stop]:
    """Return the calls of a run that a budget refused."""
    found: list[Stop] = []
    before: Event | None = None
    for event in events:
        if event.kind == "budget.exceeded":
            data, what = event.data, event.data.get("model")
            if before is not None and before.kind == "step.decided" and before.step == event.step:
                what = what or before.data.get("tool")
            after = event.step if event.step is not None else (before.step if before else None)
            found.append(Stop(event.at, after, what, data["budget"], data["limit"], data["used"]))
        before = event
    return found


class _Draft:
    """A step while its events are read."""

    def __init__(self, first: Event) -> None:
        self.found: dict[str, Any] = {
            "number": first.step, "actor": first.actor, "began_at": first.at,
        }  # fmt: skip
        self.questions: dict[str, dict[str, Any]] = {}
        self.lists: dict[str, list[Any]] = {}
        self.attempts: list[dict[str, Any]] = []

    def take(self, event: Event) -> None:
        """Add one event; kinds of a newer agentguard are kept as numbers only."""
        known = _READ.get(event.kind)
        if known is not None and not self._is_foreign(event):
            known(self, event, {**event.data, **(event.content or {})})
        self._add("events", event.seq)

    def _is_foreign(self, event: Event) -> bool:
        """A call over budget is told on the step of the call before it."""
        key, mine = event.data.get("key"), self.found.get("key")
        refused = event.kind == "step.decided" and event.data.get("decision") == "deny"
        return bool(refused and "kind" in self.found and key != mine)

    def _add(self, name: str, value: Any) -> None:
        self.lists.setdefault(name, []).append(value)

    def set(self, data: Mapping[str, Any], **names: str) -> None:
        """Take over what *data* holds under other names."""
        found = {name: data.get(key) for name, key in names.items()}
        self.found.update({name: value for name, value in found.items() if value is not None})

    def ended(self, event: Event, outcome: str) -> None:
        self.found.update(outcome=outcome, ended_at=event.at)

    def decided(self, event: Event, data: Mapping[str, Any]) -> None:
        self.set(data, kind="effect", name="tool", key="key", rule="rule", policy="policy",
                 contract="contract", payload_hash="payload_hash", call_id="call_id",
                 decision="decision", arguments="arguments")  # fmt: skip
        if data.get("decision") == "deny":
            self.set(data, refusal="error", detail="reason")
            refused = {"approval_rejected": "rejected", "approval_expired": "expired"}
            self.ended(event, refused.get(data.get("error", ""), "refused"))
        else:
            self.found["outcome"] = "open"
        self.found.setdefault("kind", "other")
        self.found["content"] = event.content is not None

    def requested(self, event: Event, data: Mapping[str, Any]) -> None:
        self.questions[data["approval_id"]] = {
            "approval_id": data["approval_id"], "rule": data["rule"],
            "payload_hash": data["payload_hash"], "generation": data["generation"],
            "roles": tuple(data["roles"]), "quorum": data["quorum"], "asked_at": event.at,
            "votes": (),
        }  # fmt: skip
        self.found.update(outcome="waiting", ended_at=None)

    def voted(self, event: Event, data: Mapping[str, Any]) -> None:
        question = self.questions.get(data["approval_id"])
        if question is None:
            return
        vote = Vote(
            data["by"], data["decision"], event.at, data["generation"], tuple(data["roles"]),
            data.get("reason", ""), tuple(data.get("changed", ())),
        )  # fmt: skip
        question["votes"] += (vote,)
        if vote.decision == "edit":
            question["generation"] = data["new_generation"]
            question["payload_hash"] = data["payload_hash"]
        elif data["status"] != "pending":
            question.update(status=data["status"], decided_at=event.at)
            self.found["outcome"] = data["status"]

    def used(self, _event: Event, data: Mapping[str, Any]) -> None:
        question = self.questions.get(data["approval_id"])
        if question is not None:
            question.update(status="used", executed_hash=data["payload_hash"])

    def lapsed(self, event: Event, data: Mapping[str, Any]) -> None:
        question = self.questions.get(data["approval_id"])
        if question is not None:
            question.update(status="expired", decided_at=event.at)
        self.ended(event, "expired")

    def started(self, event: Event, data: Mapping[str, Any]) -> None:
        if "decision" in data:  # allowed without asking anybody: decided and started are one event
            self.decided(event, data)
        if "budgets" in data:
            self.reserved(event, data)
        self.attempts.append({
            "number": data["attempt"], "fence": data["fence"], "began_at": event.at,
        })  # fmt: skip
        self.set(data, key="key")
        self.found.update(outcome="executing", ended_at=None)

    def doubted(self, event: Event, data: Mapping[str, Any]) -> None:
        self._end_attempt(event, "in_doubt", None, data["fence"])
        self.found["doubt"] = data.get("reason")
        self.ended(event, "in_doubt")

    def lost_read(self, event: Event, data: Mapping[str, Any]) -> None:
        """Only a read whose owner vanished ends so; after a failed try `step.finished` stands."""
        if "reason" in data:
            self._end_attempt(event, "failed_retryable", data["reason"], data["fence"])
            self.ended(event, "failed_retryable")

    def finished(self, event: Event, data: Mapping[str, Any]) -> None:
        """The end of a body; for a plain read this is its only event."""
        if not self.attempts:
            self._plain_read(event, data)
        self._end_attempt(event, data["outcome"], data.get("error"), None)
        self.set(data, name="tool", result_state="result_state")
        content = event.content or {}
        self.found.update(
            result=content.get("result"), detail=content.get("error"),
            content=self.found.get("content", False) or event.content is not None,
        )  # fmt: skip
        if data["outcome"] != "in_doubt":
            self.found["doubt"] = None
        if "spent_nanos" in data:
            self.settled(event, data)
        self.ended(event, data["outcome"])

    def _plain_read(self, event: Event, data: Mapping[str, Any]) -> None:
        self.found["rule"] = "allowed by contract"
        self.set(data, kind="effect", contract="contract", payload_hash="payload_hash",
                 call_id="call_id", decision="decision", arguments="arguments")  # fmt: skip
        self.found["began_at"] = event.at - _micros(data)
        self.attempts.append({
            "number": data.get("attempts", 1), "fence": 0, "began_at": self.found["began_at"],
        })  # fmt: skip

    def _end_attempt(
        self, event: Event, outcome: str, error: str | None, fence: int | None
    ) -> None:
        for attempt in reversed(self.attempts):
            if fence in (None, attempt["fence"]) and attempt.get("ended_at") is None:
                attempt.update(ended_at=event.at, outcome=outcome, error=error)
                return

    def replayed(self, event: Event, data: Mapping[str, Any]) -> None:
        repeat = Duplicate(event.at, data["first_run"], data["first_step"], data.get("call_id"))
        self._add("duplicates", repeat)
        if "kind" not in self.found:
            self.set(data, name="tool", key="key")
            self.found["kind"] = "write"
            self.ended(event, "duplicate")

    def verified(self, _event: Event, data: Mapping[str, Any]) -> None:
        self._add("verdicts", Checked(
            data["verifier"], data["passed"], data.get("reason", ""), data.get("confidence"),
        ))  # fmt: skip

    def ruled(self, event: Event, data: Mapping[str, Any]) -> None:
        ruling = data["ruling"]
        if "spent_nanos" in data:
            self.settled(event, data)
        self._add("rulings", Ruled(event.at, event.actor, ruling, data.get("reason", "")))
        outcome = _AFTER_RULING.get(ruling)
        if outcome is not None:
            self.found["doubt"] = None
            self.ended(event, outcome)

    def reserved(self, _event: Event, data: Mapping[str, Any]) -> None:
        self.found["held_usd"] = dollars(data["run_nanos"])
        self.lists["budgets"] = [(name, span, dollars(n)) for name, span, n in data["budgets"]]

    def settled(self, _event: Event, data: Mapping[str, Any]) -> None:
        spent = self.found.get("cost_usd", _NOTHING) + dollars(data["spent_nanos"])
        self.found.update(held_usd=_NOTHING, cost_usd=spent)
        if not data["happened"]:
            self.lists.pop("budgets", None)

    def model(self, event: Event, data: Mapping[str, Any]) -> None:
        self.set(data, name="model", call_id="call_id")
        cost, failed = data.get("cost_nanos"), data.get("error")
        content = event.content or {}
        self.found.update(
            kind="model", began_at=event.at - _micros(data), arguments=content.get("input"),
            result=content.get("output"), content=event.content is not None, detail=failed,
            cost_usd=None if cost is None else dollars(cost),
            tokens={n: data.get(f"{n}_tokens") or 0 for n in ("input", "output", "cached")},
        )  # fmt: skip
        self.ended(event, "succeeded" if failed is None else "failed")

    def evidence(self, _event: Event, data: Mapping[str, Any]) -> None:
        self.found["late"] = dict(data)

    def step(self) -> Step:
        """Return the step as far as it has come."""
        return Step(
            **self.found,
            questions=tuple(Question(**found) for found in self.questions.values()),
            attempts=tuple(Attempt(**found) for found in self.attempts),
            **{name: tuple(values) for name, values in self.lists.items()},
        )


def _micros(data: Mapping[str, Any]) -> dt.timedelta:
    return dt.timedelta(microseconds=data.get("duration_us") or 0)


_AFTER_RULING = {
    "happened": "succeeded", "not_happened": "failed_retryable", "failed": "failed_final",
}  # fmt: skip

_READ: dict[str, Callable[[_Draft, Event, Mapping[str, Any]], None]] = {
    "step.decided": _Draft.decided,
    "step.started": _Draft.started,
    "step.finished": _Draft.finished,
    "attempt.failed": _Draft.lost_read,
    "approval.requested": _Draft.requested,
    "approval.decided": _Draft.voted,
    "approval.used": _Draft.used,
    "approval.expired": _Draft.lapsed,
    "effect.in_doubt": _Draft.doubted,
    "effect.replayed": _Draft.replayed,
    "effect.resolved": _Draft.ruled,
    "effect.evidence": _Draft.evidence,
    "budget.reserved": _Draft.reserved,
    "budget.settled": _Draft.settled,
    "verified": _Draft.verified,
    "model.called": _Draft.model,
}
