"""Earned stages: counted where outcomes are settled, changed only together with the event that tells it.

Theory of operation. One row per (tenant, tool). A start reads it in its own transaction
(`switches.standing`). Whoever lowers a stage first waits for the starts that have read it already,
so none passes after that commit. A pin of an operator stands over the earned stage, which moves on
underneath.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..autonomy import above, below, lower_bound
from ..errors import StoreUnavailable
from ..model import EffectState, Limits, moment
from . import lifecycle, switches
from .runs import RunLog
from .values import Draft, Opening, RunRef

if TYPE_CHECKING:
    import datetime as dt
    from decimal import Decimal

    from ..autonomy import Ladder
    from ..protocols import Tx
    from .values import Settlement

OPERATIONS = "operations"
"""The run, one a tenant, in whose record stands what operators do that belongs to no run of an agent."""
_COLUMNS = "tool, stage, pinned, passed, failed, changed_at, changed_by, reason"
_ONE = f"SELECT {_COLUMNS} FROM autonomy WHERE tenant = ? AND tool = ?"  # noqa: S608 - fixed names


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tool stands in a tenant.

    Attributes:
        stage: what it has earned; None if that was never changed.
        pinned: what an operator has pinned it at.
        passed: verified outcomes since its stage was changed last, with those that *failed*.
        sure: lower bound of the share that passes, by Wilson's interval at 95 %.
        changed_by: who changed something last, and for what *reason*.
    """

    tenant: str
    tool: str
    stage: str | None
    pinned: str | None
    passed: int
    failed: int
    changed_at: dt.datetime
    changed_by: str
    reason: str

    @property
    def sure(self) -> Decimal:
        """Lower bound of the share that passes."""
        return lower_bound(self.passed, self.passed + self.failed)


def standings(tx: Tx, tenant: str | None) -> list[Standing]:
    """Return how all tools stand of which anything is known."""
    where, values = ("", ()) if tenant is None else (" WHERE tenant = ?", (tenant,))
    sql = f"SELECT tenant, {_COLUMNS} FROM autonomy{where} ORDER BY tenant, tool"  # noqa: S608 - fixed
    return [_standing(*row) for row in tx.rows(sql, values)]


def _standing(tenant: str, *row: Any) -> Standing:
    tool, stage, pinned, passed, failed, at, by, reason = row
    when = moment(at)
    if when is None:
        raise StoreUnavailable(f"the stage of {tool} has no time; see agentguard doctor")
    return Standing(tenant, tool, stage, pinned, passed, failed, when, by, reason)


def _locked(tx: Tx, tenant: str, tool: str) -> Standing:
    """Return how a tool stands; nobody else changes that until this transaction ends."""
    tx.run(
        "INSERT INTO autonomy (tenant, tool, changed_at, changed_by, reason) VALUES (?,?,?,'','')"
        " ON CONFLICT DO NOTHING",
        (tenant, tool, tx.now),
    )
    row = tx.lock(_ONE, (tenant, tool))
    if row is None:
        raise StoreUnavailable(f"the stage of {tool} vanished inside a transaction")
    return _standing(tenant, *row)


def _set(tx: Tx, before: Standing, by: str, reason: str, **values: Any) -> None:
    changed = {**values, "changed_at": tx.now, "changed_by": by, "reason": reason}
    names = ", ".join(f"{name} = ?" for name in changed)
    tx.run(
        f"UPDATE autonomy SET {names} WHERE tenant = ? AND tool = ?",  # noqa: S608 - fixed names
        (*changed.values(), before.tenant, before.tool),
    )


# Outcomes.


def hold_up(tx: Tx, end: Settlement) -> None:
    """Before anything is locked: let no start pass that would not see what a failed verdict changes."""
    if end.ladder is not None and _has_failed(end):
        switches.hold_up(tx)


def _has_failed(end: Settlement) -> bool:
    """A verifier that did not answer has said nothing about the tool."""
    return any(not v["passed"] and not v.get("unavailable") for v in end.verdicts)


def _has_passed(end: Settlement) -> bool:
    known = end.state is EffectState.SUCCEEDED and bool(end.verdicts)
    return known and all(verdict["passed"] for verdict in end.verdicts)


def count(tx: Tx, log: RunLog, end: Settlement, ladder: Ladder) -> None:
    """Count a verified outcome, and move the tool up or down if that is due."""
    failed, passed = _has_failed(end), _has_passed(end)
    if not failed and not passed:
        return
    now = _locked(tx, log.ref.tenant, ladder.tool)
    counts = now.passed + (not failed), now.failed + failed
    stage = now.stage or ladder.begins
    to = _next(ladder, stage, *counts, failed=failed)
    if to == stage:
        tx.run(
            "UPDATE autonomy SET passed = ?, failed = ? WHERE tenant = ? AND tool = ?",
            (*counts, now.tenant, now.tool),
        )
        return
    why = "a failed verdict" if failed else "verified outcomes"
    _set(tx, now, "system:record", why, stage=to, passed=0, failed=0)
    log.add(_changed(now, stage, to, why, "system:record", counts, end.step))


def _next(ladder: Ladder, stage: str, passed: int, failed_: int, *, failed: bool) -> str:
    if failed:
        return below(stage, ladder.floor)
    promote = ladder.promote
    if promote is None or not promote.is_earned(passed, failed_):
        return stage
    return above(stage, promote.to)


def _changed(
    before: Standing, stage: str | None, to: str | None, why: str, by: str,
    counts: tuple[int, int], step: int | None = None, reason: str = "",
) -> Draft:  # fmt: skip
    fact = {
        "tool": before.tool, "from": stage, "to": to, "why": why, "by": by, "passed": counts[0],
        "failed": counts[1],
    }  # fmt: skip
    return Draft("autonomy.changed", fact, step, {"reason": reason} if reason else None)


# People.


def pin(tx: Tx, tenant: str, tool: str, stage: str | None, by: str, reason: str) -> Standing:
    """Pin a tool at a stage, or with None take the pin away, from this commit on."""
    switches.hold_up(tx)
    log = operations(tx, tenant, by)
    now = _locked(tx, tenant, tool)
    _set(tx, now, by, reason, pinned=stage)
    why = "unpinned" if stage is None else "pinned"
    log.add(_changed(now, now.pinned or now.stage, stage or now.stage, why, by,
                     (now.passed, now.failed), reason=reason))  # fmt: skip
    log.save()
    return _locked(tx, tenant, tool)


def incident(tx: Tx, tenant: str, ladder: Ladder, by: str, reason: str) -> Standing:
    """Take a tool one stage down, from this commit on; its counts begin anew."""
    switches.hold_up(tx)
    log = operations(tx, tenant, by)
    now = _locked(tx, tenant, ladder.tool)
    stage = now.stage or ladder.begins
    to = below(stage, ladder.floor)
    _set(tx, now, by, reason, stage=to, passed=0, failed=0)
    counts = (now.passed, now.failed)
    log.add(_changed(now, stage, to, "an incident", by, counts, reason=reason))
    log.save()
    return _locked(tx, tenant, ladder.tool)


def operations(tx: Tx, tenant: str, by: str) -> RunLog:
    """Return the record of the tenant's operators, begun if need be."""
    ref = RunRef(tenant, OPERATIONS, by if by.startswith("system:") else f"person:{by}")
    known = tx.row("SELECT 1 FROM runs WHERE tenant = ? AND run_id = ?", (tenant, OPERATIONS))
    if known is not None:
        return RunLog(tx, ref)
    opening = Opening(ref, OPERATIONS, OPERATIONS, None, Limits(), "", None,
                      {"workflow": OPERATIONS, "agent": OPERATIONS})  # fmt: skip
    lifecycle.open_run(tx, opening)
    log = RunLog(tx, ref)
    log.status, log.finished_at = "succeeded", tx.now  # nothing runs in it
    return log
