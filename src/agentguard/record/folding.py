"""A run's events as the steps that people read: what was asked, decided, done and served again.

Theory of operation. Every event names its step, and a step belongs to one call, so a step is the
fold of its events in order. Two things stand beside that: a call over the run's budget gets no
step of its own and is told on the last one (`stops`), and a model call is written down when it
ends, so a number without events is a call without an end on record.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from ..ledger.compensating import REFUTED, UNDONE
from ..model import dollars, moment
from .costs import named
from .values import (
    LOST,
    NOTHING,
    Attempt,
    Duplicate,
    Question,
    Retrieved,
    Ruled,
    Step,
    Stop,
    Vote,
)
from .verdicts import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..model import Event


def fold(events: Iterable[Event], count: int = 0) -> list[Step]:
    """Return the steps that a run's *events* tell of, by number.

    Args:
        events: of one run, in order.
        count: how many steps the run has counted; numbers without events become open steps.
    """
    drafts: dict[int, _Draft] = {}
    last: dt.datetime | None = None
    for event in events:
        if event.step and event.kind != "budget.exceeded":  # a refused first call is told on step 0
            drafts.setdefault(event.step, _Draft(event)).take(event)
        last = event.at
    steps = {number: draft.step() for number, draft in drafts.items()}
    if last is not None:
        for number in range(1, max(count, *steps, 0) + 1):
            steps.setdefault(number, Step(number, last, "model", "a model call"))
    return [steps[number] for number in sorted(steps)]


def stops(events: Iterable[Event]) -> list[Stop]:
    """Return the calls of a run that a budget refused."""
    found: list[Stop] = []
    before: Event | None = None
    for event in events:
        if event.kind == "budget.exceeded":
            data, what = event.data, event.data.get("model") or event.data.get("cost")
            if before is not None and before.kind == "step.decided" and before.step == event.step:
                what = what or before.data.get("tool")
            budget = data.get("budget") or data.get("error") or ""
            limit, used = data.get("limit") or "", data.get("used") or ""
            found.append(Stop(event.at, event.step, what, budget, limit, used))
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
        self.costs_unknown = False

    def take(self, event: Event) -> None:
        """Add one event; kinds of a newer agentguard are kept as numbers only."""
        known = _READ.get(event.kind)
        if known is not None and not self._is_foreign(event):
            known(self, event, {**(event.content or {}), **event.data})
        self._add("events", event.seq)

    def _is_foreign(self, event: Event) -> bool:
        """A call over budget is told on the step of the call before it; a ticket on that of its call."""
        key, mine = event.data.get("key"), self.found.get("key")
        if str(key).startswith("fallback/"):
            return True
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
                 decision="decision", arguments="arguments", plan="plan",
                 plan_step="plan_step")  # fmt: skip
        if data.get("decision") == "deny":
            self.set(data, refusal="error", detail="reason")
            refused = {"approval_rejected": "rejected", "approval_expired": "expired"}
            self.ended(event, refused.get(data.get("error", ""), "refused"))
        else:
            self.found["outcome"] = "open"
        if self.found.get("kind") not in ("read", "write"):
            self.found["kind"] = "other"
        self.found["content"] = event.content is not None

    def requested(self, event: Event, data: Mapping[str, Any]) -> None:
        self.questions[data["approval_id"]] = {
            "approval_id": data["approval_id"], "rule": data["rule"],
            "payload_hash": data["payload_hash"], "generation": data["generation"],
            "roles": tuple(data["roles"]), "quorum": data["quorum"], "asked_at": event.at,
            "votes": (), "stage": data.get("stage"),
        }  # fmt: skip
        self.found.update(outcome="drafted" if "stage" in data else "waiting", ended_at=None)

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
        self.set(data, key="key", plan="plan", plan_step="plan_step")
        self.found.update(outcome="executing", ended_at=None)

    def doubted(self, event: Event, data: Mapping[str, Any]) -> None:
        reason = data.get("reason")
        lost = LOST if reason == LOST else None
        self._end_attempt(event, "in_doubt", lost, data["fence"])
        self.found["doubt"] = reason
        self.ended(event, "in_doubt")

    def lost(self, event: Event, data: Mapping[str, Any]) -> None:
        """What was lost and had no effect ends so; after a failed try `step.finished` stands."""
        if "reason" in data:
            self._end_attempt(event, "failed_retryable", data["reason"], data["fence"])
            if "spent_nanos" in data:
                self.settled(event, data)
            self.ended(event, "failed_retryable")

    def finished(self, event: Event, data: Mapping[str, Any]) -> None:
        """The end of a body; for a plain read this is its only event."""
        if not self.attempts:
            self._plain_read(event, data)
        self._end_attempt(event, data["outcome"], data.get("error"), None)
        if data["outcome"] == "in_doubt":  # ended already, by the event that tells of the doubt
            self.attempts[-1]["error"] = data.get("error")
        self.set(data, name="tool", result_state="result_state")
        content = event.content or {}
        self.found.update(
            result=content.get("result"), detail=content.get("error"),
            evidence=content.get("evidence"),
            content=self.found.get("content", False) or event.content is not None,
        )  # fmt: skip
        if data["outcome"] != "in_doubt":
            self.found["doubt"] = None
        if "spent_nanos" in data:
            self.settled(event, data)
        self.ended(event, REFUTED if data.get("result_state") == REFUTED else data["outcome"])
        came = moment(data.get("at"))
        if came is not None:  # a read's event was written with a later commit
            self.found["ended_at"] = self.attempts[-1]["ended_at"] = came + _micros(data)

    def retrieved(self, event: Event, data: Mapping[str, Any]) -> None:
        self.finished(event, data)
        documents = (Retrieved(d["id"], d["score"], d["sha256"]) for d in data["documents"])
        self.found["retrieved"] = tuple(documents)

    def _plain_read(self, event: Event, data: Mapping[str, Any]) -> None:
        self.found["rule"] = "allowed by contract"
        self.set(data, kind="effect", contract="contract", payload_hash="payload_hash",
                 call_id="call_id", decision="decision", arguments="arguments")  # fmt: skip
        self.found["began_at"] = moment(data.get("at")) or event.at - _micros(data)
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

    def verified(self, event: Event, _data: Mapping[str, Any]) -> None:
        self._add("verdicts", checked(event))

    def ruled(self, event: Event, data: Mapping[str, Any]) -> None:
        ruling = data["ruling"]
        if "spent_nanos" in data:
            self.settled(event, data)
        self._add("rulings", Ruled(event.at, event.actor, ruling, data.get("reason", "")))
        outcome = _AFTER_RULING.get(ruling)
        if outcome is not None:
            self.found["doubt"] = None
            self.ended(event, outcome)

    def compensated(self, _event: Event, data: Mapping[str, Any]) -> None:
        if data["outcome"] == UNDONE:
            self.found["outcome"] = UNDONE

    def reserved(self, _event: Event, data: Mapping[str, Any]) -> None:
        self.costs_unknown = data["run_nanos"] is None
        self.found["held_usd"] = dollars(data["run_nanos"] or 0)
        self.lists["budgets"] = [(name, span, dollars(n)) for name, span, n in data["budgets"]]

    def settled(self, _event: Event, data: Mapping[str, Any]) -> None:
        spent = self.found.get("cost_usd", NOTHING) + dollars(data["spent_nanos"])
        self.found.update(held_usd=NOTHING, cost_usd=spent)
        if not data["happened"]:
            self.lists.pop("budgets", None)

    def paid(self, _event: Event, data: Mapping[str, Any]) -> None:
        if data["nanos"] is not None:
            self.found["cost_usd"] = self.found.get("cost_usd", NOTHING) + dollars(data["nanos"])

    def model(self, event: Event, data: Mapping[str, Any]) -> None:
        cost, failed = data.get("cost_nanos"), data.get("error")
        told = failed if data.get("dispatched", True) else f"{failed}; not dispatched"
        content = event.content or {}
        self.found = {key: self.found[key] for key in ("number", "actor")}
        self.set(data, name="model", call_id="call_id")
        self.found.update(
            kind="model", began_at=event.at - _micros(data), arguments=content.get("input"),
            result=content.get("output"), content=event.content is not None, detail=told,
            cost_usd=None if cost is None else dollars(cost),
            tokens={n: data.get(f"{n}_tokens") or 0 for n in ("input", "output", "cached")},
            prompt=named(data, "prompt_name", "prompt_version", "@"),
            price=named(data, "price_source", "price_version", " "),
        )  # fmt: skip
        self.ended(event, "succeeded" if failed is None else "failed")

    def evidence(self, _event: Event, data: Mapping[str, Any]) -> None:
        self.found["late"] = dict(data)

    def step(self) -> Step:
        """Return the step as far as it has come."""
        lists: dict[str, Any] = {name: tuple(values) for name, values in self.lists.items()}
        questions = tuple(Question(**found) for found in self.questions.values())
        attempts = tuple(Attempt(**found) for found in self.attempts)
        if self.costs_unknown:
            self.found["cost_usd"] = None
        return Step(**self.found, **lists, questions=questions, attempts=attempts)


def _micros(data: Mapping[str, Any]) -> dt.timedelta:
    return dt.timedelta(microseconds=data.get("duration_us") or 0)


_AFTER_RULING = {
    "happened": "succeeded", "not_happened": "failed_retryable", "failed": "failed_final",
}  # fmt: skip

_READ: dict[str, Callable[[_Draft, Event, Mapping[str, Any]], None]] = {
    "step.decided": _Draft.decided,
    "step.started": _Draft.started,
    "step.finished": _Draft.finished,
    "retrieved": _Draft.retrieved,
    "attempt.failed": _Draft.lost,
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
    "compensated": _Draft.compensated,
    "model.called": _Draft.model,
    "cost.added": _Draft.paid,
}
