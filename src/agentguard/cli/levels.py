"""Service levels as operators see them: one line, one row, or JSON."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from .output import Column, Line
from .shapes import iso
from .text import count, escaped, instant, short

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from ..ledger.levels import Level, Report

_BARS = "▁▂▃▄▅▆▇█"


def _moment(at: int | None) -> dt.datetime | None:
    return None if at is None else dt.datetime.fromtimestamp(at / 1_000_000, dt.UTC)


def stage_now(level: Level) -> str:
    """Return the stage at which autonomy ends over it at this moment; `auto` if nowhere."""
    return "auto" if level.overridden else level.head.stage or "auto"


def demotion_line(level: Level, *, configured: bool = True) -> str:
    """Return the sentence that says what a level has taken away, and what lifts it.

    Args:
        level: the service level.
        configured: somebody has looked for it in a configuration.
    """
    head = level.head
    what = f"{head.over.replace(':', ' ')} is at {head.stage}: {head.why}, since"
    told = f"{what} {instant(_moment(head.since))}"
    if level.overridden:
        return f"{told}; lifted by {head.by} until {instant(_moment(head.until))}: {head.reason}"
    if configured and level.slo is None:
        told += "; this configuration does not declare it (--config FILE)"
    return f"{told}; agentguard slo override {head.slo} --by YOU --reason WHY --hours 1 lifts it"


def _percent(share: Decimal | None) -> str:
    return "-" if share is None else f"{share * 100:.1f} %"


def _number(value: Decimal) -> str:
    return f"{value:.2f}" if value.is_finite() else ("-" if value < 0 else "") + "inf"


def _sli(level: Level) -> str:
    now = level.now
    if now is None or now.sli is None:
        return "-"
    return f"{_percent(now.sli)} ({now.low * 100:.1f} to {now.high * 100:.1f})"


def sparkline(level: Level) -> str:
    """Return the share that was good, part by part, the oldest first; a gap where nothing was."""
    return "".join(_bar(good, good + bad) for good, bad in level.history)


def _bar(good: int, total: int) -> str:
    return _BARS[(len(_BARS) - 1) * good // total] if total else " "


def state_of(level: Level) -> str:
    """Return its state; `not declared` for one that this configuration does not have."""
    return "not declared" if level.now is None else level.now.state.replace("_", " ")


def _left(level: Level) -> str:
    return "-" if level.now is None else _number(level.now.budget_left)


def _open(level: Level) -> str:
    return f"{level.open} ({level.stale} stale)" if level.stale else str(level.open)


def _colour(level: Level) -> str:
    state = "" if level.now is None else level.now.state
    return {"ok": "ok", "burning": "waiting", "exhausted": "failed"}.get(state, "")


COLUMNS: list[Column[Level]] = [
    Column("slo", lambda s: escaped(s.head.slo), flex=8),
    Column("over", lambda s: escaped(s.head.over), flex=8, spare=1),
    Column("state", state_of, state=_colour),
    Column("now", lambda s: stage_now(s) + (" (override)" if s.overridden else "")),
    Column("good (95 % sure)", _sli),
    Column("target", lambda s: "-" if s.slo is None else f"{s.slo.target:f}", spare=5),
    Column("n", lambda s: str(s.now.counts.valid if s.now else s.head.n), right=True, spare=2),
    Column("budget left", _left, right=True),
    Column("burn", lambda s: "-" if s.now is None else _number(s.now.burn), right=True, spare=4),
    Column("last", sparkline, spare=3),
    Column("open", _open, right=True, spare=6),
    Column("window", lambda s: "-" if s.slo is None else s.slo.window.text, spare=7),
]


def level_json(level: Level) -> dict[str, Any]:
    """Return how a level stands as JSON; money and shares are texts."""
    head, now, slo = level.head, level.now, level.slo
    return {
        "tenant": head.tenant, "slo": head.slo, "over": head.over,
        "state": None if now is None else now.state, "stage": stage_now(level),
        "demoted_to": head.stage, "since": iso(_moment(head.since)), "why": head.why,
        "override": _override_json(level),
        "sli": None if now is None or now.sli is None else f"{now.sli:.6f}",
        "low": None if now is None else f"{now.low:.6f}",
        "high": None if now is None else f"{now.high:.6f}",
        "good": 0 if now is None else now.counts.good, "bad": 0 if now is None else now.counts.bad,
        "budget_left": None if now is None else _number(now.budget_left),
        "burn": None if now is None else _number(now.burn),
        "target": None if slo is None else f"{slo.target:f}",
        "window": None if slo is None else slo.window.text,
        "history": [list(part) for part in level.history],
        "open_runs": level.open, "stale_runs": level.stale,
    }  # fmt: skip


def _override_json(level: Level) -> dict[str, Any] | None:
    head = level.head
    if head.until is None:
        return None
    return {
        "until": iso(_moment(head.until)), "by": head.by, "reason": head.reason,
        "active": level.overridden,
    }  # fmt: skip


STATUS_KEYS = (
    "JSON keys: tenant, slo, over, state, stage, demoted_to, since, why, override (until, by, reason,"
    " active), sli, low, high, good, bad, budget_left, burn, target, window, history ([good, bad] of"
    " each part), open_runs, stale_runs."
)
REPORT_KEYS = (
    "JSON keys: level (as slo status), days (day, good, bad), spent (at, run_id, step, outcome),"
    " more."
)


def report_json(report: Report) -> dict[str, Any]:
    """Return what a level counted, and who spent it, as JSON."""
    return {
        "level": level_json(report.level),
        "days": [{"day": d.day.isoformat(), "good": d.good, "bad": d.bad} for d in report.days],
        "spent": [
            {"at": iso(s.at), "run_id": s.run_id, "step": s.step, "outcome": s.outcome}
            for s in report.spent
        ],
        "more": report.more,
    }  # fmt: skip


def report_lines(report: Report) -> Iterator[Line]:
    """Yield how a level stands, its days, and what spent its budget."""
    level = report.level
    yield Line("slo", f"{escaped(level.head.slo)} over {escaped(level.head.over)}")
    yield Line("state", f"{state_of(level)}, stage now {stage_now(level)}", _colour(level))
    yield Line("good", f"{_sli(level)}, budget left {_left(level)}")
    if level.head.stage is not None:
        yield Line("autonomy", demotion_line(level), "note")
    for day in report.days:
        if day.good or day.bad:
            yield Line(day.day.isoformat(), f"{day.good} good, {day.bad} bad")
    if not report.spent:
        yield Line("spent by", "nothing: none was bad")
    for spent in report.spent:
        where = f"step {spent.step}" if spent.step is not None else "run"
        show = f"agentguard runs show {short(spent.run_id)}"
        yield Line("spent by", f"{instant(spent.at)}  {spent.outcome}  {where}  {show}", "failed")
    if report.more:
        yield Line("", f"only the last {count(len(report.spent), 'bad outcome')} are listed")
