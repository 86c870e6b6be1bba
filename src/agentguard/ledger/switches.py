"""Kill switches: once one is committed, no start passes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import RunHalted
from ..protocols import Asked

if TYPE_CHECKING:
    from ..protocols import Tx

_GATE = "switches"
_CLOSED = (
    "SELECT kind, name, by, reason FROM switches WHERE lifted_at IS NULL AND (kind = 'all'"
    " OR (kind = 'tool' AND name = ?) OR (kind = 'agent' AND name = ?)"
    " OR (kind = 'tenant' AND name = ?)) LIMIT 1"
)


def asked(tenant: str, agent: str, tool: str) -> tuple[Asked, Asked]:
    """Return the questions of `closed`."""
    row = Asked("row", _CLOSED, (tool, agent, tenant), early=True)
    return Asked("gate", _GATE, early=True), row


def closed(tx: Tx, tenant: str, agent: str, tool: str) -> RunHalted | None:
    """Return the refusal, if a switch stands over this call."""
    tx.gate(_GATE, alone=False)
    row = tx.row(_CLOSED, (tool, agent, tenant))
    if row is None:
        return None
    kind, name, by, reason = row
    return RunHalted(f"stopped by the kill switch on {kind} {name}".rstrip() + f" ({by}: {reason})")


def tools(tx: Tx) -> dict[str, str]:
    """Return the tools that are stopped, each with the sentence that says so."""
    rows = tx.rows(
        "SELECT name, by, reason FROM switches WHERE kind = 'tool' AND lifted_at IS NULL"
    )
    return {n: f"stopped by the kill switch on tool {n} ({by}: {why})" for n, by, why in rows}


def throw(tx: Tx, kind: str, name: str, by: str, reason: str) -> None:
    """Stop everything that *kind* and *name* stand for, from this commit on."""
    tx.gate(_GATE, alone=True)  # starts that have looked already are waited for
    tx.run(
        "INSERT INTO switches (kind, name, by, reason, at) VALUES (?,?,?,?,?)",
        (kind, name, by, reason, tx.now),
    )


def lift(tx: Tx, kind: str, name: str, by: str) -> int:
    """Lift the switches on *kind* and *name* and return how many there were."""
    return tx.changed(
        "UPDATE switches SET lifted_at = ?, lifted_by = ?"
        " WHERE kind = ? AND name = ? AND lifted_at IS NULL",
        (tx.now, by, kind, name),
    )


def thrown(tx: Tx) -> list[dict[str, Any]]:
    """Return the switches that stand now."""
    rows = tx.rows("SELECT kind, name, by, reason, at FROM switches WHERE lifted_at IS NULL")
    return [dict(zip(("kind", "name", "by", "reason", "at"), row, strict=True)) for row in rows]
