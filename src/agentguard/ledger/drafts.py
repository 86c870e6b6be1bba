"""What stands on record of a draft: the call as the agent made it, and what the proposal showed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import DecisionRefused, StoreUnavailable
from .rows import load_effect
from .runs import commitment
from .sealed import reading
from .values import Execution

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import Approval
    from ..protocols import Tx

_TOLD = (
    "SELECT data, salt, body FROM events WHERE tenant = ? AND run_id = ? AND step = ? AND kind = ?"
    " AND body IS NOT NULL ORDER BY seq DESC"
)


def execution(tx: Tx, approval: Approval, by: str) -> Execution:
    """Return the call that an approval stands for, for a person who executes it.

    Raises:
        DecisionRefused: its effect stands under another approval by now.
    """
    row = load_effect(tx, approval.tenant, approval.effect_id)
    if row is None or row.approval_id != approval.id:
        raise DecisionRefused(
            f"{approval.id} is not what its call waits for any more: it was asked about anew; see"
            " agentguard approvals list"
        )
    return Execution(approval.id, by, row.tool, row.key, row.step, row.payload_hash, row.call_id)


def arguments_of(tx: Tx, approval: Approval) -> Mapping[str, Any] | None:
    """Return the arguments as they were asked for, before any edit; None if they are not kept."""
    if approval.edits is None:
        return approval.arguments
    for fact, content in _told(tx, approval, "step.decided"):
        if fact.get("key") == approval.effect_id and fact.get("decision") == "ask":
            found: Mapping[str, Any] = content["arguments"]
            return found
    return None


def proposal(tx: Tx, approval: Approval) -> Mapping[str, Any] | None:
    """Return what a proposal shows besides the call: evidence and diff; None if there is nothing."""
    for fact, content in _told(tx, approval, "approval.requested"):
        if fact.get("approval_id") == approval.id:
            return content
    return None


def _told(tx: Tx, approval: Approval, kind: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    place = (approval.tenant, approval.run_id, approval.step, kind)
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    with reading(f"the record of run {approval.run_id}"):
        for data, salt, body in tx.rows(_TOLD, place):
            fact = json.loads(data)
            if commitment(bytes(salt), body) != fact.get("content"):
                raise StoreUnavailable(
                    f"the record of {approval.tool}, step {approval.step}, was changed after it was"
                    " written"
                )
            found.append((fact, json.loads(body)))
    return found
