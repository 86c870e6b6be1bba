"""How runs begin, go on and end: each part of a run is entered and left in one transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..canonical import dumps, seal
from ..errors import ConfigurationError
from ..model import Limits, Usage
from ..outcomes import run_outcome
from ..protocols import foreseen
from . import slos, switches
from .runs import COUNTERS, GIVEN, RunLog, asked, hash_key
from .values import Closed, Draft, Opened, Opening, Pending, RunRef, Watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..protocols import Tx

_EMPTY_HASH = bytes(32)
_INSERT = (
    f"INSERT INTO runs (tenant, run_id, {', '.join(COUNTERS + GIVEN)}, seal)"  # noqa: S608
    f" VALUES ({', '.join('?' * (len(COUNTERS + GIVEN) + 3))})"
)


def open_run(tx: Tx, opening: Opening) -> Opened:
    """Enter a run: begin it, or resume it with all that it has used and done."""
    ref = opening.ref
    known = tx.row("SELECT 1 FROM runs WHERE tenant = ? AND run_id = ?", (ref.tenant, ref.run_id))
    limits, trace = opening.limits, None
    if known is None:
        _insert_run(tx, opening)
        log = RunLog(tx, ref)
        log.add(Draft("run.started", _opening_data(opening, limits)))
        log.leaf()
    else:
        log = RunLog(tx, ref)
        limits, trace = _merged(opening.limits, log.limits), log.trace
        _resume(tx, opening, log, limits)
    usage = log.save()
    return Opened(
        part=log.part,
        usage=usage,
        limits=limits,
        active_us=log.active_us,
        started_at=log.part_started_at,
        hash_key=hash_key(tx, ref.tenant),
        former_keys=_has_former_keys(tx, ref.tenant),
        earlier_trace=trace,
        planned=log.plan is not None,
    )


def _has_former_keys(tx: Tx, tenant: str) -> bool:
    """Return whether effects of this tenant may stand under keys of the first schema."""
    found = tx.row("SELECT former_keys FROM tenants WHERE tenant = ?", (tenant,))
    return bool(found and found[0])


def _insert_run(tx: Tx, opening: Opening) -> None:
    ref, now = opening.ref, tx.now
    fresh = dict.fromkeys(COUNTERS, 0) | {
        "status": "running", "part": 1, "started_at": now, "part_started_at": now,
        "updated_at": now, "cost_complete": 1, "head_hash": _EMPTY_HASH, "finished_at": None,
        "error": None, "plan": None, "ending": None,
    }  # fmt: skip
    values = (
        ref.tenant, ref.run_id, *fresh.values(), opening.workflow, opening.agent, opening.subject,
        limits_text(opening.limits), opening.policy_version, opening.trace,
    )  # fmt: skip
    tx.run(_INSERT, (*values, seal(*values)))


def _resume(tx: Tx, opening: Opening, log: RunLog, limits: Limits) -> None:
    if log.workflow != opening.workflow:
        raise ConfigurationError(
            f"run {opening.ref.run_id!r} belongs to the workflow {log.workflow!r}, not to"
            f" {opening.workflow!r}: use another run_id"
        )
    stopped = log.stopped()
    if stopped is not None:
        raise stopped
    if log.status == "running" and opening.join:
        return
    if log.status == "running":
        # The earlier part ended without saying so, or still runs beside us: what it was seen to
        # use of its time counts.
        log.active_us += log.updated_at - log.part_started_at
    log.part, log.status, log.part_started_at = log.part + 1, "running", tx.now
    log.finished_at, log.error = None, None
    log.limits = limits_text(limits)
    log.policy_version, log.trace = opening.policy_version, opening.trace
    log.add(Draft("run.resumed", {**_opening_data(opening, limits), "part": log.part}))


def visit(tx: Tx, ref: RunRef) -> Opened:
    """Return a run as a person finds it who acts in its record, in whatever state it is.

    How long the run may take is no matter of theirs.
    """
    log = RunLog(tx, ref)
    kept = json.loads(log.limits)
    chosen = {n: limit_of(kept, n) for n in Limits.__dataclass_fields__}
    return Opened(
        part=log.part,
        usage=log.usage(),
        limits=Limits(**{**chosen, "max_seconds": None, "max_repeats": None}),
        active_us=log.active_us,
        started_at=log.part_started_at,
        hash_key=hash_key(tx, ref.tenant),
        former_keys=False,
        earlier_trace=None,
    )


def _opening_data(opening: Opening, limits: Limits) -> dict[str, Any]:
    return {**opening.data, "limits": json.loads(limits_text(limits))}


def _merged(asked: Limits, stored: str) -> Limits:
    """Return the run's limits: what this entry names replaces what an earlier one set."""
    kept = json.loads(stored)
    names = Limits.__dataclass_fields__
    chosen = {name: getattr(asked, name) for name in names}
    return Limits(**{n: v if v is not None else limit_of(kept, n) for n, v in chosen.items()})


def limit_of(kept: Mapping[str, Any], name: str) -> Any:
    """Return one limit as stored; seconds are kept as text, since the chain holds no floats."""
    value = kept.get(name)
    return float(value) if name == "max_seconds" and value is not None else value


def limits_text(limits: Limits) -> str:
    """Return limits as canonical JSON without floats and without what is not set."""
    found = {name: getattr(limits, name) for name in Limits.__dataclass_fields__}
    return dumps(
        {
            name: str(value) if isinstance(value, float) else value
            for name, value in found.items()
            if value is not None
        }
    )


@foreseen(lambda ref, _pending: asked(ref))
def flush(tx: Tx, ref: RunRef, pending: Pending) -> Usage:
    """Write events that waited for a commit."""
    log = RunLog(tx, ref)
    log.absorb(pending)
    return log.save()


def close_run(
    tx: Tx, ref: RunRef, status: str, error: str | None, pending: Pending,
    kind: str | None = None, watch: Watch | None = None,
) -> Closed:  # fmt: skip
    """Leave a run: succeeded, failed, or waiting while people have not decided; how it stands.

    What ended it is told in words (*error*) and by its *kind*, or the name of its class. It counts
    in the service levels that *watch* its workflow.
    """
    if watch is not None and _may_be_bad(watch, status):
        switches.hold_up(tx)
    log = RunLog(tx, ref)
    log.absorb(pending)
    log.active_us += tx.now - log.part_started_at
    was_running = log.status == "running"
    if was_running:
        closed = log.closed()
        log.status = _stands(tx, log, status) if closed is None else _rests(log)
        error = error if closed is None else closed.message
        log.error = None if log.status == "waiting" else error
    log.finished_at = tx.now
    outcome = run_outcome(log.status, kind, _ended_safely(log))
    log.add(_finished(log, outcome, error))
    if watch is not None and outcome != "pending":
        again = log.part > 1 or not was_running or any(slo.abandoned for slo in watch.slos)
        ended = slos.Ended(kind, again=again)
        slos.record(tx, log, watch, slos.run_fact(tx, log, outcome, watch), ended=ended)
    log.leaf()
    return Closed(log.status, outcome, log.save())


def _may_be_bad(watch: Watch, status: str) -> bool:
    """Return whether this end may take autonomy away: what it cost and took is not known yet."""
    measured = any(slo.sli != "success" for slo in watch.slos)
    return watch.demotes and (measured or status not in ("succeeded", "waiting"))


def _ended_safely(log: RunLog) -> str | None:
    """Return the ending that has closed the run's write path, if one has."""
    return json.loads(log.ending or "{}").get("ending") if log.closed() is not None else None


def _finished(log: RunLog, outcome: str, why: str | None) -> Draft:
    fact = {"status": log.status, "part": log.part, "outcome": outcome}
    return Draft("run.finished", fact, content=_why(why))


def _why(error: str | None) -> dict[str, str] | None:
    return None if error is None else {"error": error}


def _stands(tx: Tx, log: RunLog, status: str) -> str:
    return "waiting" if _waits(tx, log.ref) else status


def _rests(log: RunLog) -> str:
    """A run whose write path is closed is halted, unless a person can open it by an answer."""
    return "waiting" if json.loads(log.ending or "{}").get("ending") == "ask" else "halted"


def _waits(tx: Tx, ref: RunRef) -> bool:
    row = tx.row(  # worded as `load_doubt` is, and for the same reason
        "SELECT 1 FROM effects e WHERE e.state = 'awaiting_approval'"
        " AND e.tenant || '' = ? AND e.run_id || '' = ? AND NOT EXISTS (SELECT 1 FROM approvals a"
        " WHERE a.tenant = e.tenant AND a.approval_id = e.approval_id AND a.stage IS NOT NULL)"
        " LIMIT 1",  # nobody waits for a draft
        (ref.tenant, ref.run_id),
    )
    return row is not None


def stops(tx: Tx, ref: RunRef, agent: str) -> dict[str, str]:
    """Return why plain reads may not start: by tool, or under no name for all of them."""
    everything = RunLog(tx, ref).stopped() or switches.closed(tx, ref.tenant, agent, "")
    found = switches.tools(tx)
    return found if everything is None else {"": everything.message}


def cancel_run(tx: Tx, tenant: str, run_id: str, by: str, reason: str) -> None:
    """Stop a run for good: nothing more starts in it, and it cannot be resumed."""
    log = RunLog(tx, RunRef(tenant, run_id, f"person:{by}"))
    log.status, log.error, log.finished_at = "cancelled", reason, tx.now
    log.add(_finished(log, run_outcome("cancelled"), reason))
    log.leaf()
    log.save()
