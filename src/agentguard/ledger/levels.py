"""What people ask of service levels and decide on them: how each stands, who spent it, overrides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..model import moment
from . import autonomy, slos, switches
from .slos import Head
from .values import Draft

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    from ..protocols import Tx
    from ..slos import Judgement, Slo
    from .values import Watch

_DAY = 86_400_000_000
_STALE = 3_600_000_000
"""So long a run that runs has told nothing: its process may be gone."""
_OPEN_SINCE = 30 * _DAY
_POINTS = 20
_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Level:
    """How a service level stands in a tenant.

    Attributes:
        over: what it watches, such as `workflow:refunds`.
        slo: as this configuration declares it; None where it does not: then its demotion stands
            until an operator lifts it, or a process restores it that knows its rule.
        now: how it is judged; None without a declaration.
        history: the share that was good, in up to twenty parts of what was counted last, the
            oldest first, with how many outcomes each had.
        open: runs of its workflow, of the last 30 days, that have not ended: they count when they
            do. Of these so many are *stale*: nothing was heard of them for an hour. Of a tool, both
            are 0.
        overridden: an override lifts the demotion at this moment.
    """

    head: Head
    slo: Slo | None
    now: Judgement | None
    history: tuple[tuple[int, int], ...]
    open: int
    stale: int
    overridden: bool


def standing(tx: Tx, tenant: str, declared: Iterable[Slo]) -> list[Level]:
    """Return how all levels stand that are declared or were ever counted."""
    wanted = {(slo.name, slos.over(slo)): slo for slo in declared}
    rows = tx.rows(f"{slos.SELECT} WHERE tenant = ? ORDER BY slo, over", (tenant,))
    heads = {(head.slo, head.over): head for head in (Head(*row) for row in rows)}
    kept = [place for place, head in heads.items() if place in wanted or head.stage or head.until]
    found = list[Level]()
    for place in sorted({*wanted, *kept}):
        head = heads.get(place) or Head(tenant, *place)
        found.append(_level(tx, head, wanted.get(place)))
    return found


def _level(tx: Tx, head: Head, slo: Slo | None) -> Level:
    now = None if slo is None else slos.judged(tx, slo, head)
    overridden = head.until is not None and head.until > tx.now
    return Level(head, slo, now, _history(tx, head, slo), *_open(tx, head), overridden)


def _history(tx: Tx, head: Head, slo: Slo | None) -> tuple[tuple[int, int], ...]:
    """Return (good, bad) of so many equal parts of the last outcomes, the oldest first."""
    last = slo.window.last if slo is not None else None
    many = min(head.n, last or 10 * _POINTS)
    marks = sorted({head.n - many * part // _POINTS for part in range(_POINTS + 1)})
    wanted = ", ".join("?" * len(marks))
    rows = tx.rows(
        "SELECT n, good, bad FROM outcomes WHERE tenant = ? AND slo = ? AND over = ?"  # noqa: S608 - marks
        f" AND n IN ({wanted})",
        (*head.place, *marks),
    )
    known = {n: (good, bad) for n, good, bad in rows}
    before, found = known.get(marks[0], (0, 0)), list[tuple[int, int]]()
    for mark in marks[1:]:
        here = known.get(mark, before)
        found.append((here[0] - before[0], here[1] - before[1]))
        before = here
    return tuple(found)


def _open(tx: Tx, head: Head) -> tuple[int, int]:
    kind, _, name = head.over.partition(":")
    if kind != "workflow":
        return 0, 0
    row = tx.row(
        "SELECT count(*), coalesce(sum(CASE WHEN status = 'running' AND updated_at < ? THEN 1 ELSE 0"
        " END), 0) FROM runs WHERE tenant = ? AND started_at >= ? AND workflow = ?"
        " AND status IN ('running', 'waiting')",
        (tx.now - _STALE, head.tenant, tx.now - _OPEN_SINCE, name),
    )
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


# Who spent it.


@dataclass(frozen=True, slots=True)
class Day:
    """What was counted on one day, UTC."""

    day: dt.date
    good: int
    bad: int


@dataclass(frozen=True, slots=True)
class Spent:
    """One bad outcome: a run, or one *step* of it, that spent a part of the error budget."""

    at: dt.datetime
    run_id: str
    step: int | None
    outcome: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a service level counted day by day, and what spent its budget, the newest first.

    Attributes:
        more: there are more that spent it than are listed.
    """

    level: Level
    days: tuple[Day, ...]
    spent: tuple[Spent, ...]
    more: bool


def report(tx: Tx, tenant: str, slo: Slo, days: int, most: int = _MOST) -> Report:
    """Return the last so many days of a level, today included."""
    today = tx.now // _DAY
    first = (today - days + 1) * _DAY
    head = _head(tx, tenant, slo)
    place = (*head.place, first)
    where = "FROM outcomes WHERE tenant = ? AND slo = ? AND over = ? AND at >= ?"
    counted = {
        int(day): (int(good), int(bad))
        for day, good, bad in tx.rows(
            f"SELECT at / {_DAY}, sum(CASE WHEN verdict = 'good' THEN 1 ELSE 0 END),"
            f" sum(CASE WHEN verdict = 'bad' THEN 1 ELSE 0 END) {where} GROUP BY at / {_DAY}",
            place,
        )
    }
    rows = list(tx.rows(
        f"SELECT at, run_id, step, outcome {where} AND verdict = 'bad' ORDER BY n DESC LIMIT ?",
        (*place, most + 1),
    ))  # fmt: skip
    return Report(
        _level(tx, head, slo),
        tuple(Day(_time(d * _DAY).date(), *counted.get(d, (0, 0)))
              for d in range(today - days + 1, today + 1)),
        tuple(Spent(_time(at), run, step, outcome) for at, run, step, outcome in rows[:most]),
        len(rows) > most,
    )  # fmt: skip


def _time(at: int) -> dt.datetime:
    found = moment(at)
    if found is None:  # at is a number
        raise ValueError(at)
    return found


def _head(tx: Tx, tenant: str, slo: Slo) -> Head:
    place = (tenant, slo.name, slos.over(slo))
    found = tx.row(slos.ONE, place)
    return Head(*place) if found is None else Head(*found)


# People.


def known(tx: Tx, tenant: str, slo: str) -> list[str]:
    """Return what a level of this name was ever counted over."""
    rows = tx.rows(
        "SELECT over FROM slos WHERE tenant = ? AND slo = ? ORDER BY over", (tenant, slo)
    )
    return [over for (over,) in rows]


def time_of(tx: Tx) -> int:
    """Return the store's time, which never goes back in a process as a clock may."""
    return tx.now


def override(
    tx: Tx, tenant: str, slo: str, over: str, until: int | None, by: str, reason: str
) -> Head:
    """Lift the demotion of a level *until* then; with None, let it count again from this commit on."""
    if until is None:
        switches.hold_up(tx)
    log = autonomy.operations(tx, tenant, by)
    head = slos.locked(tx, tenant, slo, over)
    was = "auto" if head.until is not None and head.until > tx.now else head.stage or "auto"
    head.until, head.by, head.reason = until, by, reason
    tx.run(
        "UPDATE slos SET override_until = ?, override_by = ?, override_reason = ?"
        " WHERE tenant = ? AND slo = ? AND over = ?",
        (until, by, reason, *head.place),
    )
    kind, _, name = over.partition(":")
    fact = {
        "slo": slo, kind: name, "from": was, "to": "auto" if until else head.stage or "auto",
        "why": "override" if until else "override lifted", "by": by, "good": head.good,
        "bad": head.bad, **({"until": until} if until else {}),
    }  # fmt: skip
    log.add(Draft("autonomy.changed", fact, None, {"reason": reason}))
    log.save()
    return head


has_due = slos.has_due


def review(tx: Tx, tenant: str, watch: Watch) -> int:
    """Restore what is due by its rule; the record of the tenant's operators tells it."""
    log = autonomy.operations(tx, tenant, slos.BY)
    found = slos.review(tx, log, watch)
    log.save()
    return found
