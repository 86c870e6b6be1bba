"""Kill switches: once one is committed, no start passes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..autonomy import STAGES
from ..errors import RunHalted, StoreUnavailable
from ..protocols import Asked

if TYPE_CHECKING:
    from ..protocols import Tx

_GATE = "switches"
_CLOSED = (
    "SELECT 'stage', coalesce(pinned, stage), '', '' FROM autonomy WHERE tenant = ? AND tool = ?"
    " UNION ALL SELECT kind, name, by, reason FROM switches WHERE lifted_at IS NULL AND (kind = 'all'"
    " OR (kind = 'tool' AND name = ?) OR (kind = 'agent' AND name = ?)"
    " OR (kind = 'tenant' AND name = ?))"
)
"""One question for whatever stands over a tool. The table of stages is named first: its rows change
in transactions with others, and those forget what was asked of it (`_pg_foresight`)."""


def asked(tenant: str, agent: str, tool: str) -> tuple[Asked, Asked]:
    """Return the questions of `closed`."""
    row = Asked("row", _CLOSED, (tenant, tool, tool, agent, tenant), early=True)
    return Asked("gate", _GATE, early=True), row


def closed(tx: Tx, tenant: str, agent: str, tool: str) -> RunHalted | None:
    """Return the refusal, if a switch stands over this call."""
    return standing(tx, tenant, agent, tool)[0]


def standing(tx: Tx, tenant: str, agent: str, tool: str) -> tuple[RunHalted | None, str | None]:
    """Return the refusal, if a switch stands over this call, and the stage of its tool.

    That is what an operator has pinned it at, or what it has earned; None if nothing is known.
    """
    tx.gate(_GATE, alone=False)
    halted, earned = None, None
    for kind, name, by, reason in tx.rows(_CLOSED, (tenant, tool, tool, agent, tenant)):
        if kind == "stage":
            earned = _known(name, tool)
        else:
            text = f"stopped by the kill switch on {kind} {name}".rstrip()
            halted = halted or RunHalted(f"{text} ({by}: {reason})")
    return halted, earned


def _known(stage: str | None, tool: str) -> str | None:
    if stage is not None and stage not in STAGES:
        raise StoreUnavailable(
            f"the stage of {tool} is not as it was written: the store is damaged, and nothing was"
            " started; see agentguard doctor"
        )
    return stage


def hold_up(tx: Tx) -> None:
    """Wait until no start is on its way that has seen what this transaction is about to change."""
    tx.gate(_GATE, alone=True)


def tools(tx: Tx) -> dict[str, str]:
    """Return the tools that are stopped, each with the sentence that says so."""
    rows = tx.rows(
        "SELECT name, by, reason FROM switches WHERE kind = 'tool' AND lifted_at IS NULL"
    )
    return {n: f"stopped by the kill switch on tool {n} ({by}: {why})" for n, by, why in rows}


def throw(tx: Tx, kind: str, name: str, by: str, reason: str) -> None:
    """Stop everything that *kind* and *name* stand for, from this commit on."""
    hold_up(tx)
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
