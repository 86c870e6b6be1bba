"""Runs that nobody ends: they count as failures once nothing was heard of them for as long as declared.

A process that is killed between two calls leaves no doubt and no end. Who looks finds its run still
running and silent. It may yet be alive, so the run itself stays as it is, and goes on if it can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import slos, switches
from .runs import RunLog
from .values import RunRef, Watch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..protocols import Tx
    from ..slos import Slo

_SECOND = 1_000_000
_AGO = 7 * 86_400
"""Runs that began before that count nothing any more: whoever declares this today asks for no history."""
_SILENT = (
    "SELECT r.run_id FROM runs r WHERE r.tenant = ? AND r.started_at >= ? AND r.workflow = ?"
    " AND r.status = 'running' AND r.updated_at <= ? AND NOT EXISTS (SELECT 1 FROM outcomes o"
    " WHERE o.tenant = r.tenant AND o.run_id = r.run_id AND o.slo = ? AND o.over = ?"
    " AND o.step IS NULL AND o.at >= r.updated_at) ORDER BY r.started_at, r.run_id"
)


def found(tx: Tx, watches: Iterable[Watch], tenant: str | None) -> list[tuple[str, str, Watch]]:
    """Return the runs that are to be counted, each with its tenant and who counts it; nothing is written.

    Args:
        tx: the transaction.
        watches: the service levels of each workflow.
        tenant: only this one's; None for all.
    """
    known = [tenant] if tenant else [name for (name,) in tx.rows("SELECT tenant FROM tenants")]
    return [
        (where, run_id, Watch((slo,), watch.tell))
        for watch in watches
        for slo in watch.slos
        if slo.abandoned is not None
        for where in known
        for run_id in _silent(tx, where, slo, slo.abandoned)
    ]


def _silent(tx: Tx, tenant: str, slo: Slo, seconds: int) -> list[str]:
    since, until = tx.now - (_AGO + seconds) * _SECOND, tx.now - seconds * _SECOND
    values = (tenant, since, slo.subject, until, slo.name, slos.over(slo))
    return [run_id for (run_id,) in tx.rows(_SILENT, values)]


def count(tx: Tx, tenant: str, run_id: str, watch: Watch) -> None:
    """Count a run as a failure, unless it has ended or told something meanwhile."""
    [slo] = watch.slos
    switches.hold_up(tx)
    log = RunLog(tx, RunRef(tenant, run_id, slos.BY))
    if log.status != "running" or tx.now < log.updated_at + (slo.abandoned or 0) * _SECOND:
        return
    fact = slos.run_fact(tx, log, "failure", watch)
    slos.record(tx, log, watch, fact, ended=slos.Ended(None, again=True))
    log.save()
