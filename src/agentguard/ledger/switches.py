"""Kill switches: once one is committed, no start passes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..autonomy import STAGES, lowest
from ..errors import RunHalted, StoreUnavailable
from ..protocols import Asked

if TYPE_CHECKING:
    from ..protocols import Tx

_GATE = "switches"
_CLOSED = (
    "SELECT 'stage', coalesce(pinned, stage), '', '', 0 FROM autonomy WHERE tenant = ? AND tool = ?"
    " UNION ALL SELECT 'slo', stage, slo, why, coalesce(override_until, 0) FROM slos"
    " WHERE tenant = ? AND (over = ? OR over = ?) AND stage IS NOT NULL"
    " UNION ALL SELECT kind, name, by, reason, 0 FROM switches WHERE lifted_at IS NULL AND"
    " (kind = 'all' OR (kind = 'tool' AND name = ?) OR (kind = 'agent' AND name = ?)"
    " OR (kind = 'tenant' AND name = ?))"
)
"""One question for whatever stands over a call. Until when an override holds is asked of the row, not
of the statement: that is put together before the transaction knows the time."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands over a call.

    Attributes:
        halted: the refusal, if a switch does.
        earned: what an operator has pinned its tool at, or what that has earned; None if nothing is
            known.
        demoted: the lowest stage to which a service level has demoted its tool or its workflow, with
            the words that say so; None if none has.
    """

    halted: RunHalted | None = None
    earned: str | None = None
    demoted: tuple[str, str] | None = None


def over(kind: str, name: str) -> str:
    """Return how a tool or a workflow is called in the table of service levels."""
    return f"{kind}:{name}"


def asked(tenant: str, agent: str, tool: str, workflow: str = "") -> tuple[Asked, Asked]:
    """Return the questions of `standing`."""
    row = Asked("row", _CLOSED, _values(tenant, agent, tool, workflow), early=True)
    return Asked("gate", _GATE, early=True), row


def _values(tenant: str, agent: str, tool: str, workflow: str) -> tuple[str, ...]:
    places = over("tool", tool), over("workflow", workflow)
    return (tenant, tool, tenant, *places, tool, agent, tenant)


def closed(tx: Tx, tenant: str, agent: str, tool: str) -> RunHalted | None:
    """Return the refusal, if a switch stands over this call."""
    return standing(tx, tenant, agent, tool).halted


def standing(tx: Tx, tenant: str, agent: str, tool: str, workflow: str = "") -> Standing:
    """Return what stands over this call now, and until the transaction ends."""
    tx.gate(_GATE, alone=False)
    halted, earned, demoted = None, None, None
    for kind, name, by, reason, until in tx.rows(_CLOSED, _values(tenant, agent, tool, workflow)):
        if kind == "stage":
            earned = _known(name, tool)
        elif kind == "slo":
            if until <= tx.now:
                demoted = _lower(demoted, _known(name, tool), reason)
        else:
            text = f"stopped by the kill switch on {kind} {name}".rstrip()
            halted = halted or RunHalted(f"{text} ({by}: {reason})")
    return Standing(halted, earned, demoted)


def _lower(
    known: tuple[str, str] | None, stage: str | None, why: str | None
) -> tuple[str, str] | None:
    if stage is None or (known is not None and lowest(known[0], stage) == known[0]):
        return known
    return stage, why or "a service level"


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
