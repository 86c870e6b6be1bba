"""Service levels: counted where outcomes are settled; who burns its error budget loses autonomy there.

Theory of operation. One row a service level and what it is over, and one row an outcome, with the
good and bad ones so far: every window is the difference of two of them, however long the history.
Both are written in the transaction that settles the outcome, and so are the demotion that follows
from it and the event that tells it: nobody can find one without the others. Every start of a write
reads the stages in its own transaction (`switches.standing`). Whoever demotes first waits for the
starts that have read them already, so none passes after that commit. A bad outcome lowers and
nothing else does; by rule a level comes back, one stage at a time.

These rows are locked last, in the order of their names, so that nobody waits in a circle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..autonomy import DRAFTED, STAGES, lowest
from ..errors import StoreUnavailable
from ..model import EffectState, dollars
from ..protocols import Asked
from ..slos import Counts, Demotion, Fact, judge, outcome_of, windows
from . import switches
from .compensating import REFUTED
from .runs import RunLog
from .sealed import reading
from .values import Counted, Draft

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..protocols import Tx
    from ..slos import Judgement, Slo, Window
    from .values import RunRef, Settlement, Watch

LOST = Fact("in_doubt")
"""The owner of an effect died, or was interrupted, and nobody knows whether it happened."""
BY = "system:slo"
_SECOND = 1_000_000
_CALM = 86_400
"""Where calls are only drafted nothing is counted: so many seconds, if nothing else says how long."""
_UP = {"draft": "approve", "propose": "approve", "approve": None}
_HELD = ("action_drafted", "approval_expired")
_COLUMNS = (
    "tenant, slo, over, n, good, bad, at, stage, since, since_n, why, override_until, override_by,"
    " override_reason"
)
SELECT = f"SELECT {_COLUMNS} FROM slos"  # noqa: S608 - fixed names
ONE = f"{SELECT} WHERE tenant = ? AND slo = ? AND over = ?"
_BASE = "SELECT good, bad FROM outcomes WHERE tenant = ? AND slo = ? AND over = ? AND"


@dataclass(slots=True)
class Head:
    """How a service level stands in a tenant.

    Attributes:
        over: what it watches, such as `tool:issue_refund`.
        n: outcomes that were counted, ever; of these so many *good* and *bad*.
        at: when the last one was.
        stage: where autonomy ends over it; None if nothing was taken away.
        since: when that was changed last, and how many outcomes there were then (*since_n*).
        why: in which words.
        until: so long an operator's override lifts the demotion.
    """

    tenant: str
    slo: str
    over: str
    n: int = 0
    good: int = 0
    bad: int = 0
    at: int = 0
    stage: str | None = None
    since: int | None = None
    since_n: int | None = None
    why: str | None = None
    until: int | None = None
    by: str | None = None
    reason: str | None = None

    @property
    def place(self) -> tuple[str, str, str]:
        """The key of its row."""
        return self.tenant, self.slo, self.over

    def __post_init__(self) -> None:
        if self.stage is not None and self.stage not in STAGES:
            raise StoreUnavailable(
                f"the stage of the service level {self.slo} is not as it was written: the store is"
                " damaged; see agentguard doctor"
            )


def over(slo: Slo) -> str:
    """Return what *slo* watches, as its rows call it."""
    return switches.over("workflow" if slo.tool is None else "tool", slo.subject)


def asked(tenant: str, watch: Watch | None) -> list[Asked]:
    """Return the questions of `record`."""
    slos = () if watch is None else watch.slos
    return [Asked("lock", ONE, (tenant, slo.name, over(slo))) for slo in slos]


# What came out.


def fact_of(end: Settlement) -> Fact:
    """Return what the end of a call says to those who watch its tool."""
    took = end.data.get("duration_us")
    return Fact(
        _outcome(end), None, None if took is None else Decimal(took) / _SECOND, escalated=False
    )


def _outcome(end: Settlement) -> str:
    wrong = any(not said["passed"] for said in end.verdicts if not said.get("unavailable"))
    if end.result_state == REFUTED or wrong:
        return "refuted"
    if end.state is EffectState.SUCCEEDED:
        return "ok"
    return "in_doubt" if end.state is EffectState.IN_DOUBT else "error"


def run_fact(tx: Tx, log: RunLog, outcome: str, watch: Watch) -> Fact:
    """Return what the end of a run says to those who watch its workflow."""
    spent = dollars(log.spent) if log.cost_complete else None
    took = Decimal(tx.now - log.started_at) / _SECOND
    looks = any(slo.sli == "escalation" for slo in watch.slos)
    return Fact(outcome, spent, took, escalated=looks and _has_asked(tx, log))


def _has_asked(tx: Tx, log: RunLog) -> bool:
    """Return whether people were asked about a call of the run, for another reason than a demotion."""
    return any("demoted" not in asked for asked in _asks(tx, log))


def _asks(tx: Tx, log: RunLog) -> list[dict[str, Any]]:
    rows = tx.rows(
        "SELECT data FROM events WHERE tenant = ? AND run_id = ? AND kind = 'step.decided'",
        (log.ref.tenant, log.ref.run_id),
    )
    with reading(f"the record of run {log.ref.run_id}"):
        found = [json.loads(data) for (data,) in rows]
    return [fact for fact in found if fact.get("decision") == "ask"]


@dataclass(frozen=True, slots=True)
class Ended:
    """That what is counted is the end of a run, and of which *kind* the error was that ended it.

    Attributes:
        again: it may have been counted already, before it was resumed.
    """

    kind: str | None
    again: bool = False


def _says_nothing(tx: Tx, log: RunLog, head: Head, fact: Fact, ended: Ended) -> bool:
    """Return whether a run came out as it did because autonomy was taken away.

    A demotion must not feed itself: that a call was only drafted, or nobody answered, is no failure
    of the agent. Nor is it a success, by which autonomy would come back.
    """
    if fact.outcome == "success":
        changed = head.stage is not None or (head.since or 0) >= log.started_at
        return changed and any("demoted" in found and _is_draft(found) for found in _asks(tx, log))
    held = fact.outcome == "escalated" and ended.kind in _HELD
    return held and any("demoted" in found for found in _asks(tx, log))


def _is_draft(asked: dict[str, Any]) -> bool:
    return str(asked.get("rule", "")).startswith(tuple(f"autonomy: {stage}" for stage in DRAFTED))


# Counting.


def hold_up(tx: Tx, watch: Watch | None, fact: Fact) -> None:
    """Before anything is locked: let no start pass that would not see what a bad outcome changes."""
    if watch is not None and any(
        slo.demote is not None and outcome_of(slo, fact) == "bad" for slo in watch.slos
    ):
        switches.hold_up(tx)


def lock_all(tx: Tx, watched: Iterable[tuple[str, Watch]]) -> None:
    """Lock all that several outcomes count in, in the one order."""
    places = {(tenant, slo.name, over(slo)) for tenant, watch in watched for slo in watch.slos}
    for place in sorted(places):
        _locked(tx, place)


def record(
    tx: Tx, log: RunLog, watch: Watch | None, fact: Fact, step: int | None = None, *,
    ended: Ended | None = None,
) -> None:  # fmt: skip
    """Count an outcome in all that watch it, and demote or restore what is due.

    Args:
        tx: the transaction.
        log: the run whose outcome it is; its record tells what follows.
        watch: who counts.
        fact: what came out.
        step: of a call; None for a run.
        ended: of a run; one that was resumed and ended the same is not counted again.
    """
    if watch is None:
        return
    told = list[Counted]()
    for slo in watch.slos:
        verdict = outcome_of(slo, fact)
        if verdict is None:
            continue
        head = _locked(tx, (log.ref.tenant, slo.name, over(slo)))
        counted = (fact.outcome, verdict)
        if ended is not None and (
            _says_nothing(tx, log, head, fact, ended)
            or (ended.again and _was_counted(tx, head, log, counted))
        ):
            continue
        told.append(_count(tx, log, slo, head, counted, step))
    if told:
        tx.after_commit(_Once(watch, told))


class _Once:
    """Tells what is durable now; stores may call it twice."""

    def __init__(self, watch: Watch, told: list[Counted]) -> None:
        self._watch, self._told = watch, told

    def __call__(self) -> None:
        told, self._told = self._told, []
        for counted in told:
            self._watch.tell(counted)


def _locked(tx: Tx, place: tuple[str, str, str]) -> Head:
    found = tx.lock(ONE, place)
    if found is None:  # a row that is not there cannot be locked
        tx.run(
            "INSERT INTO slos (tenant, slo, over, at) VALUES (?,?,?,?) ON CONFLICT DO NOTHING",
            (*place, tx.now),
        )
        found = tx.lock(ONE, place)
    if found is None:
        raise StoreUnavailable(f"the service level {place[1]} vanished inside a transaction")
    return Head(*found)


def locked(tx: Tx, tenant: str, slo: str, what: str) -> Head:
    """Return how a level stands; nobody else changes that until this transaction ends."""
    return _locked(tx, (tenant, slo, what))


def _was_counted(tx: Tx, head: Head, log: RunLog, counted: tuple[str, str]) -> bool:
    last = tx.row(
        "SELECT outcome, verdict FROM outcomes WHERE tenant = ? AND run_id = ? AND slo = ?"
        " AND over = ? AND step IS NULL ORDER BY n DESC LIMIT 1",
        (head.tenant, log.ref.run_id, head.slo, head.over),
    )
    return last is not None and tuple(last) == counted


def _count(
    tx: Tx, log: RunLog, slo: Slo, head: Head, counted: tuple[str, str], step: int | None
) -> Counted:
    outcome, verdict = counted
    head.n, head.at = head.n + 1, max(tx.now, head.at)
    head.good += verdict == "good"
    head.bad += verdict == "bad"
    tx.run(
        "INSERT INTO outcomes (tenant, slo, over, n, at, good, bad, verdict, outcome, run_id, step)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        (*head.place, head.n, head.at, head.good, head.bad, verdict, outcome, log.ref.run_id, step),
    )
    before = head.stage
    told = _judged(tx, slo, head, lowers=verdict == "bad")
    _write(tx, head)
    if told is None:
        return Counted(slo.name, verdict)
    log.add(Draft(told.kind, told.data, step))
    return Counted(slo.name, verdict, before or "auto", head.stage or "auto")


def _write(tx: Tx, head: Head) -> None:
    tx.run(
        "UPDATE slos SET n = ?, good = ?, bad = ?, at = ?, stage = ?, since = ?, since_n = ?, why = ?"
        " WHERE tenant = ? AND slo = ? AND over = ?",
        (head.n, head.good, head.bad, head.at, head.stage, head.since, head.since_n, head.why,
         *head.place),
    )  # fmt: skip


# Judging.


def judged(tx: Tx, slo: Slo, head: Head) -> Judgement:
    """Say how a level stands now."""
    found = counts(tx, head, windows(slo))
    return judge(slo, found.__getitem__)


def counts(tx: Tx, head: Head, asked_of: Iterable[Window]) -> dict[Window, Counts]:
    """Return the outcomes of each window: what was counted so far, less what was before it."""
    found = {window: Counts(head.good, head.bad) for window in asked_of}
    begun = [w for w in found if w.last is None or head.n > w.last]
    values = list[Any]()
    for window in begun:
        first = tx.now - window.size * _SECOND if window.last is None else head.n - window.last
        values += [*head.place, first]
    parts = [_part(number, window) for number, window in enumerate(begun)]
    for number, good, bad in tx.rows(" UNION ALL ".join(parts), tuple(values)) if parts else ():
        found[begun[number]] = Counts(head.good - good, head.bad - bad)
    return found


def _part(number: int, window: Window) -> str:
    which = "at <= ? ORDER BY at DESC, n DESC LIMIT 1" if window.last is None else "n = ?"
    return f"SELECT {number}, good, bad FROM ({_BASE} {which}) AS before_{number}"  # noqa: S608 - fixed


def _judged(tx: Tx, slo: Slo, head: Head, *, lowers: bool) -> Draft | None:
    """Move the stage if that is due, and return the event that tells it."""
    rule = slo.demote if lowers else None
    if rule is None and head.stage is None:
        return None
    now = judged(tx, slo, head)
    if rule is not None:
        to = lowest(head.stage or "auto", *_wanted(rule, now))
        if to != (head.stage or "auto"):
            switches.hold_up(tx)
            return move(tx, slo, head, to, f"slo {slo.name} {_word(now)}", now)
    return _restored(tx, slo, head, now)


def _word(now: Judgement) -> str:
    return "exhausted" if now.state == "exhausted" else "burning"


def _wanted(rule: Demotion, now: Judgement) -> Iterable[str | None]:
    if now.state == "exhausted":
        yield rule.exhausted
    if now.state == "burning" or (now.state == "exhausted" and now.firing("page")):
        yield rule.burning


def _restored(tx: Tx, slo: Slo, head: Head, now: Judgement) -> Draft | None:
    if head.stage is None or not is_due(tx, slo, head, now):
        return None
    if slo.demote is None:
        return move(tx, slo, head, None, f"slo {slo.name} demotes nothing any more", now)
    to = _UP.get(head.stage)
    why = "restored" if to is None else f"restored from {head.stage}"
    return move(tx, slo, head, to, f"slo {slo.name} {why}", now)


def is_due(tx: Tx, slo: Slo, head: Head, now: Judgement) -> bool:
    """Return whether a level that was demoted comes back by its rule, by one stage.

    One that shall demote nothing gives back at once what it took before somebody said so.
    """
    rule = slo.demote
    if rule is None:
        return True
    after = rule.restore_after or 0
    if head.since is not None and tx.now < head.since + after * _SECOND:
        return False
    if head.stage in DRAFTED and tx.now >= _last_bad(tx, head) + _calm(slo, rule) * _SECOND:
        return True  # drafts prove nothing, so time alone brings it where people look at each call
    if rule.restore_good is None:
        return now.state not in ("burning", "exhausted")
    return _good_since(tx, head, rule.restore_good)


def _calm(slo: Slo, rule: Demotion) -> int:
    """Return the seconds without a bad outcome after which drafts end.

    Where none are declared, no bad outcome is left in a window so long. Outcomes push nothing out of
    a window of outcomes while there are none.
    """
    return rule.restore_after or slo.window.seconds or _CALM


def _last_bad(tx: Tx, head: Head) -> int:
    """Return when the level was changed last, or the last bad outcome since came."""
    found = tx.row(
        "SELECT at FROM outcomes WHERE tenant = ? AND slo = ? AND over = ? AND n > ?"
        " AND verdict = 'bad' ORDER BY n DESC LIMIT 1",
        (*head.place, head.since_n or 0),
    )
    return (head.since or 0) if found is None else int(found[0])


def _good_since(tx: Tx, head: Head, many: int) -> bool:
    """Return whether the last so many outcomes were good, all of them since the last change."""
    first = head.n - many
    if first < (head.since_n or 0):
        return False
    found = tx.row(f"{_BASE} n = ?", (*head.place, first))
    return (0 if found is None else found[1]) == head.bad


def move(
    tx: Tx, slo: Slo, head: Head, to: str | None, why: str, now: Judgement
) -> Draft:  # fmt: skip
    """Change the stage in *head*; nothing is written yet. Return the event that tells it."""
    kind, _, name = head.over.partition(":")
    stage = None if to == "auto" else to
    fact = {
        "slo": slo.name, kind: name, "from": head.stage or "auto", "to": stage or "auto",
        "why": why, "by": BY, "good": now.counts.good, "bad": now.counts.bad,
        "window": slo.window.text,
    }  # fmt: skip
    head.stage, head.since, head.since_n, head.why = stage, tx.now, head.n, why
    return Draft("autonomy.changed", fact)


def review(tx: Tx, log: RunLog, watch: Watch) -> int:
    """Restore what is due by its rule; the record of *log* tells it. Nothing is lowered here.

    Returns how many levels moved.
    """
    told = list[Counted]()
    standing = {(head.slo, head.over) for head in demoted(tx, log.ref.tenant)}
    for slo in watch.slos:
        if (slo.name, over(slo)) not in standing:
            continue
        head = _locked(tx, (log.ref.tenant, slo.name, over(slo)))
        before, now = head.stage, judged(tx, slo, head)
        draft = _restored(tx, slo, head, now)
        if draft is not None:
            _write(tx, head)
            log.add(draft)
            told.append(Counted(slo.name, "", before, head.stage or "auto"))
    if told:
        tx.after_commit(_Once(watch, told))
    return len(told)


def restore(tx: Tx, ref: RunRef, watch: Watch) -> int:
    """Restore what is due by its rule; the record of a run that was just opened tells it."""
    log = RunLog(tx, ref)
    found = review(tx, log, watch)
    log.save()
    return found


def has_due(tx: Tx, tenant: str, watch: Watch) -> bool:
    """Return whether `review` would restore something; a look that writes nothing."""
    known = {(slo.name, over(slo)): slo for slo in watch.slos}
    found = [(head, known.get((head.slo, head.over))) for head in demoted(tx, tenant)]
    return any(
        slo is not None and is_due(tx, slo, head, judged(tx, slo, head)) for head, slo in found
    )


def demoted(tx: Tx, tenant: str) -> list[Head]:
    """Return the levels of a tenant that have taken autonomy away."""
    rows = tx.rows(f"{SELECT} WHERE tenant = ? AND stage IS NOT NULL", (tenant,))
    return [Head(*row) for row in rows]
