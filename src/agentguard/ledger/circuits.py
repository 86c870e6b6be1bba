"""Circuits: a tool that fails too often is left alone by its whole tenant; and retries are rationed.

Theory of operation. One row a tenant and tool, made by its first failure.

    closed     --so many failures in the window--> open
    open       --cooldown over, a start----------> half_open: that start is the probe
    half_open  --the probe failed----------------> open
    half_open  --the probe ended otherwise-------> closed
    half_open  --the probe's effect is executing no more, or its owner is lost--> the next start probes

A closed circuit is only read, never locked, so that starts do not wait for each other. The probe is
an effect under its fence: whatever became of it can be seen on its row, so nothing has to be told.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import CircuitOpen
from ..protocols import Asked
from .rows import load_effect
from .values import Draft

if TYPE_CHECKING:
    from ..model import RetryBudget
    from ..protocols import Tx
    from .runs import RunLog
    from .values import Breaker, Intent, Settlement

_BUSY = 1.0
"""Seconds to wait while somebody probes."""
_RETRIES = "retries"
_TOKEN = 100
"""A retry costs so much; each call that is started pays in as many of it as the percents say."""
_SELECT = (
    "SELECT state, failures, opened_at, until, probe_key, probe_fence FROM circuits"
    " WHERE tenant = ? AND name = ?"
)
_TOKENS = "SELECT tokens FROM circuits WHERE tenant = ? AND name = ?"


def asked(tenant: str, breaker: Breaker | None) -> list[Asked]:
    """Return the question of `refusal` and `record`, for tools that have a circuit."""
    return [] if breaker is None else [Asked("row", _SELECT, (tenant, _name(breaker.tool)))]


def _name(tool: str) -> str:
    return f"tool:{tool}"


def refusal(tx: Tx, intent: Intent) -> CircuitOpen | None:
    """Return the refusal, if the circuit of this tool is open or somebody else probes it."""
    intent.probes, breaker = False, intent.breaker
    if breaker is None:
        return None
    place = (intent.run.tenant, _name(breaker.tool))
    found = tx.row(_SELECT, place)
    if found is None or found[0] == "closed":
        return None
    found = tx.lock(_SELECT, place)
    if found is None or found[0] == "closed":
        return None
    state, failures, _, until, key, fence = found
    if state == "open" and tx.now < until:
        many = f"{breaker.tool} failed {len(json.loads(failures))} times"
        return _open(many, (until - tx.now) / 1_000_000)
    if state == "half_open" and _is_probing(tx, intent.run.tenant, key, fence):
        return _open(f"{breaker.tool} failed and is being tried by one call", _BUSY)
    intent.probes = True
    return None


def _open(why: str, wait: float) -> CircuitOpen:
    return CircuitOpen(f"{why}: no call is started for {wait:.3f} s", retry_after=wait)


def _is_probing(tx: Tx, tenant: str, key: str, fence: int) -> bool:
    row = load_effect(tx, tenant, key)
    if row is None or row.fence != fence or row.state != "executing":
        return False
    return row.owner is None or row.owner == tx.owner or not tx.is_lost(row.owner)


def note_start(tx: Tx, log: RunLog, intent: Intent, fence: int, step: int) -> None:
    """Write that this start is the probe, if it is."""
    if not intent.probes:
        return
    tx.run(
        "UPDATE circuits SET state = 'half_open', probe_key = ?, probe_fence = ?"
        " WHERE tenant = ? AND name = ?",
        (intent.key, fence, intent.run.tenant, _name(intent.tool)),
    )
    log.add(Draft("circuit.probed", {"tool": intent.tool, "key": intent.key}, step))


def record(tx: Tx, log: RunLog, end: Settlement) -> None:
    """Write what the end of a body says of its tool's circuit."""
    breaker = end.breaker
    if breaker is None:
        return
    place = (end.run.tenant, _name(breaker.tool))
    found = tx.row(_SELECT, place)
    probe = (
        found is not None and found[0] == "half_open" and tuple(found[4:]) == (end.key, end.fence)
    )
    if not probe and (not end.struck or (found is not None and found[0] != "closed")):
        return
    found = _locked(tx, place)
    if probe and not end.struck:
        _write(tx, place, "closed", [], None)
        log.add(Draft("circuit.closed", {"tool": breaker.tool}, end.step))
    elif probe or found[0] == "closed":
        _strike(tx, log, end, breaker, found, probe=probe)


def _strike(
    tx: Tx, log: RunLog, end: Settlement, breaker: Breaker, found: Any, *, probe: bool
) -> None:
    """Count a failure, and open the circuit if it is one too many, or that of a probe."""
    place = (end.run.tenant, _name(breaker.tool))
    since = tx.now - breaker.window_us
    failures = [at for at in json.loads(found[1]) if at > since][1 - breaker.failures :]
    failures.append(tx.now)
    if not probe and len(failures) < breaker.failures:
        _write(tx, place, "closed", failures, None)
        return
    until = tx.now + breaker.cooldown_us
    _write(tx, place, "open", failures, until)
    fact = {"tool": breaker.tool, "failures": len(failures), "until": until, "probe": probe}
    log.add(Draft("circuit.opened", fact, end.step))


def _locked(tx: Tx, place: tuple[str, str]) -> Any:
    found = tx.lock(_SELECT, place)
    if found is None:  # a row that is not there cannot be locked
        tx.run(
            "INSERT INTO circuits (tenant, name, state) VALUES (?,?,'closed')"
            " ON CONFLICT DO NOTHING",
            place,
        )
        found = tx.lock(_SELECT, place)
    return found or ("closed", "[]", None, None, None, None)


def _write(
    tx: Tx, place: tuple[str, str], state: str, failures: list[int], until: int | None
) -> None:
    tx.run(
        "UPDATE circuits SET state = ?, failures = ?, opened_at = ?, until = ?, probe_key = NULL,"
        " probe_fence = NULL WHERE tenant = ? AND name = ?",
        (state, json.dumps(failures), None if until is None else tx.now, until, *place),
    )


def opened(tx: Tx) -> list[dict[str, Any]]:
    """Return the circuits that are not closed, as operators see them."""
    rows = tx.rows(
        "SELECT tenant, name, state, failures, opened_at, until FROM circuits"
        " WHERE state <> 'closed' ORDER BY tenant, name"
    )
    return [
        {
            "tenant": tenant, "tool": name.removeprefix("tool:"), "state": state,
            "failures": len(json.loads(failures)), "opened_at": opened_at, "until": until,
        }
        for tenant, name, state, failures, opened_at, until in rows
    ]  # fmt: skip


def take_retry(tx: Tx, tenant: str, budget: RetryBudget, starts: int) -> bool:
    """Take one retry out of the tenant's bucket, into which *starts* of calls have put their share."""
    place = (tenant, _RETRIES)
    found = tx.lock(_TOKENS, place)
    if found is None:
        tx.run(
            "INSERT INTO circuits (tenant, name, state, tokens) VALUES (?,?,'closed',?)"
            " ON CONFLICT DO NOTHING",
            (*place, budget.burst * _TOKEN),
        )
        found = tx.lock(_TOKENS, place)
    tokens = min((found[0] if found else 0) + starts * budget.percent, budget.burst * _TOKEN)
    allowed = tokens >= _TOKEN
    tx.run(
        "UPDATE circuits SET tokens = ? WHERE tenant = ? AND name = ?",
        (tokens - _TOKEN if allowed else tokens, *place),
    )
    return allowed
