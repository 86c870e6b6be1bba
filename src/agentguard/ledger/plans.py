"""Plans of runs: which steps were promised, and which of them the run's calls have used up.

A plan is an event, `plan.set`; the run's row says which one counts. A step is used up in the
transaction that starts its call, and given back when it is known that nothing happened. What is
used up is folded from the run's own events, under the lock of its row, so that no two calls use up
one step, in whatever processes they are.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..canonical import canonical, jsonable, keyed_hash
from ..errors import ConfigurationError, GuardError, PlanViolation, StoreUnavailable
from ..model import EffectState
from .runs import RunLog, hash_key
from .sealed import reading
from .values import Ask, Draft, Intent, Pending, RunRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..model import Effect, Usage
    from ..protocols import Tx

OUTSIDE, OUT_OF_ORDER = "outside", "out of order"
KIND = "plan.set"
_ASK = Ask("outside the plan")
_AMOUNT = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")
_RULED_OUT = ("not_happened", "failed")
_KINDS = (
    "step.started", "step.finished", "retrieved", "attempt.failed", "effect.resolved",
    "effect.replayed", "compensated",
)  # fmt: skip
_TOLD = (
    "SELECT step, kind, data FROM events WHERE tenant = ? AND run_id = ? AND seq > ?"  # noqa: S608 - fixed names
    f" AND kind IN {_KINDS} ORDER BY seq"
)
_NOT_SO = ("refuted", "undone")
"""Result states of what happened otherwise than it should, or is undone since."""


def forms_of(key: bytes, value: Any) -> tuple[str, ...]:
    """Return the keyed hashes under which a planned value is met by a call's.

    A number is met by the same number, whatever its type. A text is met by that text, and by the
    number that it spells where the tool's argument is a number.
    """
    if _is_number(value):
        return (_hash(key, _number(value)),)
    own = (_hash(key, ["value", jsonable(value)]),)
    if isinstance(value, str) and _AMOUNT.fullmatch(value):
        return (*own, _hash(key, _number(Decimal(value))))
    return own


def form_of(key: bytes, value: Any) -> str:
    """Return the keyed hash of a call's argument, as its type reads it."""
    return _hash(key, _number(value) if _is_number(value) else ["value", jsonable(value)])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _number(value: Any) -> list[Any]:
    return ["number", jsonable(Decimal(str(value)))]


def _hash(key: bytes, form: list[Any]) -> str:
    return keyed_hash(key, canonical(form))[:32]


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step: so many calls of a tool, with these arguments under their keyed hashes."""

    tool: str
    forms: Mapping[str, tuple[str, ...]]
    repeat: int = 1

    def fits(self, tool: str, form: Callable[[str], str | None]) -> bool:
        """Return whether a call is one of this step's; what the step does not name may be anything."""
        return tool == self.tool and all(form(n) in forms for n, forms in self.forms.items())


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan as its event tells it; *seq* is that event's number."""

    seq: int
    steps: tuple[PlanStep, ...]
    outside: str
    ordered: bool
    reads: bool
    template: str | None = None

    @classmethod
    def of(cls, seq: int, data: Mapping[str, Any]) -> Plan:
        """Return the plan that an event's *data* tells of."""
        steps = [
            PlanStep(s["tool"], {n: tuple(f) for n, f in s["arguments"].items()}, s["repeat"])
            for s in data["steps"]
        ]
        return cls(seq, tuple(steps), data["outside"], data["ordered"], data["reads"],
                   data.get("template"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come with its plan.

    Attributes:
        upto: the number of the last event that is counted.
        used: effect key → the step that it uses up, counted from 1.
        done: those of them that have happened, as they should, and are not undone.
        calls: step of the run → effect key.
    """

    plan: Plan
    key: bytes
    upto: int
    used: Mapping[str, int] = field(default_factory=dict)
    done: frozenset[str] = frozenset()
    calls: Mapping[int, str] = field(default_factory=dict)

    def told(
        self, upto: int, events: Iterable[tuple[int | None, str, Mapping[str, Any]]]
    ) -> Progress:
        """Return the progress after *events*, the last of which is number *upto*."""
        used, done, calls = dict(self.used), set(self.done), dict(self.calls)
        for step, kind, data in events:
            name = data.get("key") or calls.get(step or 0)
            if name is None or kind not in _KINDS:
                continue
            if "plan_step" in data:
                used[name] = data["plan_step"]
                calls[step or 0] = name
            if kind == "compensated":
                done.discard(name)
                if data.get("outcome") == "undone":  # as if it had not happened
                    used.pop(name, None)
            elif _happened(kind, data):
                done.add(name)
            elif _did_not_happen(kind, data):
                used.pop(name, None)
        return replace(self, upto=upto, used=used, done=frozenset(done), calls=calls)

    def place(
        self, tool: str, name: str, values: Mapping[str, Any]
    ) -> tuple[str | None, int | None]:
        """Return how a call stands to the plan, and the step that it would use up."""
        if name in self.used:
            return None, self.used[name]
        fitting = self._fitting(tool, values)
        if not fitting:
            return OUTSIDE, None
        if not self.plan.ordered:
            return None, max(fitting, key=lambda n: len(self.plan.steps[n - 1].forms))
        due = self._is_due(fitting[0])
        return (None if due else OUT_OF_ORDER), fitting[0]

    def _fitting(self, tool: str, values: Mapping[str, Any]) -> list[int]:
        def form(argument: str) -> str | None:
            return form_of(self.key, values[argument]) if argument in values else None

        return [
            number for number, step in enumerate(self.plan.steps, 1)
            if self._left(number) > 0 and step.fits(tool, form)
        ]  # fmt: skip

    def _left(self, number: int) -> int:
        return self.plan.steps[number - 1].repeat - sum(n == number for n in self.used.values())

    def _is_due(self, number: int) -> bool:
        """Return whether everything before step *number* has happened."""
        done = [n for name, n in self.used.items() if name in self.done]
        before = enumerate(self.plan.steps[: number - 1], 1)
        return all(done.count(n) >= step.repeat for n, step in before)


def _happened(kind: str, data: Mapping[str, Any]) -> bool:
    if kind == "effect.resolved":
        return data.get("ruling") == "happened"
    return data.get("outcome") == "succeeded" and data.get("result_state") not in _NOT_SO


def _did_not_happen(kind: str, data: Mapping[str, Any]) -> bool:
    if kind == "effect.resolved":
        return data.get("ruling") in _RULED_OUT
    if kind == "attempt.failed":
        return "reason" in data
    return kind != "step.started" and str(data.get("outcome", "")).startswith("failed")


class Plans:
    """What one process remembers of a run's plan, so that it reads every event once."""

    def __init__(self) -> None:
        self.progress: Progress | None = None

    @property
    def reads(self) -> bool:
        """Whether reads have to be in the plan, too."""
        return self.progress is not None and self.progress.plan.reads

    @property
    def asks_for_reads(self) -> bool:
        """Whether people decide on reads outside the plan: those must be the same when they come back."""
        return self.reads and self.progress is not None and self.progress.plan.outside == "ask"

    def remember(self, progress: Progress) -> None:
        """Take over what a durable transaction has seen, unless a later one has been heard of."""
        known = self.progress
        if known is None or (known.plan.seq, known.upto) <= (progress.plan.seq, progress.upto):
            self.progress = progress

    def replayed(self, effect: Effect, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the event of a replay says: a step whose effect is there already is done."""
        known = self.progress
        good = effect.state is EffectState.SUCCEEDED and effect.result_state not in _NOT_SO
        if known is None or not good:
            return {}
        _, step = known.place(effect.tool, effect.id, values)
        if step is None:
            return {}
        # Its event waits for a commit: the next replay here must not take it for the same step.
        done = known.done | {effect.id}
        self.progress = replace(known, used={**known.used, effect.id: step}, done=done)
        return {"plan_step": step}


def judged(tx: Tx, log: RunLog, intent: Intent) -> Intent | PlanViolation:
    """Return the call with its place in the run's plan, or why the plan refuses it.

    What agentguard does by itself, an undo or a safe ending, is no call of the agent.
    """
    if log.plan is None or "/" in intent.key:
        return intent
    progress = current(tx, log, intent.plans)
    plan = progress.plan
    if intent.effect == "read" and not plan.reads:
        return intent
    word, step = progress.place(intent.tool, intent.key, intent.values)
    if word is not None and plan.outside == "refuse":
        return _violation(intent.tool, word, plan)
    ask = _ASK if word is not None and plan.outside == "ask" else None
    return replace(intent, ask=intent.ask or ask, plan=word, plan_step=step)


def _violation(tool: str, word: str, plan: Plan) -> PlanViolation:
    named = f"the template {plan.template}" if plan.template else "the plan of this run"
    if word == OUT_OF_ORDER:
        return PlanViolation(
            f"{tool} was not started: {named} has it later, after steps that are not done yet"
        )
    return PlanViolation(
        f"{tool} was not started: {named} has no step left for it with these arguments"
    )


def fact(intent: Intent) -> dict[str, Any]:
    """Return what the event of a start or a question says of the plan."""
    found = {"plan": intent.plan, "plan_step": intent.plan_step}
    return {name: value for name, value in found.items() if value is not None}


def current(tx: Tx, log: RunLog, plans: Plans | None) -> Progress:
    """Return how far the run has come, this transaction included."""
    known = plans.progress if plans else None
    if known is None or known.plan.seq != log.plan:
        known = Progress(_load(tx, log), hash_key(tx, log.ref.tenant), log.plan or 0)
    rows = tx.rows(_TOLD, (log.ref.tenant, log.ref.run_id, known.upto))
    with reading(f"the record of run {log.ref.run_id}"):
        told = ((step, kind, json.loads(data)) for step, kind, data in rows)
        found = known.told(log.head_seq, told)
    if plans is not None:
        tx.after_commit(lambda: plans.remember(found))
    return found


def _load(tx: Tx, log: RunLog) -> Plan:
    with reading(f"the plan of run {log.ref.run_id}"):
        return Plan.of(log.plan or 0, _data(tx, log))


def _data(tx: Tx, log: RunLog) -> dict[str, Any]:
    row = tx.row(
        "SELECT data FROM events WHERE tenant = ? AND run_id = ? AND seq = ? AND kind = ?",
        (log.ref.tenant, log.ref.run_id, log.plan, KIND),
    )
    if row is None:
        raise StoreUnavailable(
            f"the plan of run {log.ref.run_id} is not in its record any more, so nothing was started;"
            " see agentguard doctor"
        )
    found: dict[str, Any] = json.loads(row[0])
    return found


def look(tx: Tx, ref: RunRef) -> Progress | None:
    """Return how far a run has come with its plan, if it has one."""
    log = RunLog(tx, ref)
    return None if log.plan is None else current(tx, log, None)


@dataclass(frozen=True, slots=True)
class NewPlan:
    """A plan about to be set; *data* is what its event says, *shown* its arguments as people see them."""

    data: Mapping[str, Any]
    shown: Mapping[str, Any]
    reason: str = ""


def set_plan(
    tx: Tx, ref: RunRef, new: NewPlan, plans: Plans, pending: Pending
) -> tuple[GuardError | None, Usage]:
    """Make a plan the run's; the same one again goes on where it stands."""
    log = RunLog(tx, ref)
    log.absorb(pending)
    stopped = log.stopped()
    if stopped is not None:
        return stopped, log.save()
    before = None if log.plan is None else _data(tx, log)
    if before is None or {**before, **new.data} != before:
        if before is not None and not new.reason.strip():
            return _replaces_silently(ref.run_id), log.save()
        more = {} if before is None else {"replaces": log.plan}
        content = {"steps": new.shown["steps"], "reason": new.reason}
        log.add(Draft(KIND, {**new.data, **more}, None, content))
        log.plan = log.head_seq
    current(tx, log, plans)
    return None, log.save()


def _replaces_silently(run_id: str) -> ConfigurationError:
    return ConfigurationError(
        f"run {run_id} has another plan already: give reason= to replace it, or set the same plan"
        " again to go on with it"
    )
