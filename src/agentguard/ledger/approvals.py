"""Approvals: asked for, decided and used up inside the ledger's transactions (guarantee G5).

Theory of operation. An approval belongs to one effect and one generation of its arguments. The
rule that asked is evaluated once; its answer is this row and is never asked again. A generation
ends when the call is edited or asked anew; votes of an older generation count for nothing.

    pending --enough approve--> approved --the start transaction--> used
    pending --any reject--> rejected          pending, approved --time--> expired
    pending --edit--> pending (generation + 1)      any open --asked anew--> superseded
"""

from __future__ import annotations

import base64
import json
import os
import unicodedata
from typing import TYPE_CHECKING, Any

from ..autonomy import DRAFTED
from ..canonical import dumps, seal, sha256
from ..errors import (
    StoreUnavailable,
)
from ..model import Approval, Decision, moment
from .runs import RunLog
from .sealed import check_seal, reading, write_changes
from .values import Ask, Draft, Intent, RunRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..protocols import Tx

COLUMNS = (
    "tenant", "approval_id", "key", "generation", "status", "tool", "requested_hash",
    "payload_hash", "contract_version", "policy_version", "arguments", "arguments_hash",
    "input_schema", "rule", "roles", "quorum", "allow_edit", "frozen_fields", "run_id", "step",
    "agent", "subject", "created_at", "expires_at", "decided_at", "used_at", "edits", "edited_by",
    "stage",
)  # fmt: skip
SELECT = f"SELECT {', '.join(COLUMNS)}, seal FROM approvals"  # noqa: S608 - fixed names
_OPEN = ("pending", "approved")
_ONE = f"{SELECT} WHERE tenant = ? AND approval_id = ?"
_INSERT = f"INSERT INTO approvals ({', '.join(COLUMNS)}, seal) VALUES ({'?,' * len(COLUMNS)}?)"  # noqa: S608
SELECT_VOTES = (
    "SELECT tenant, approval_id, generation, person, decision, roles, reason, at, seal FROM votes"
)
_VOTES = f"{SELECT_VOTES} WHERE tenant = ? AND approval_id = ? ORDER BY at"


def load(tx: Tx, tenant: str, approval_id: str) -> Approval | None:
    """Return an approval with the votes of its generation."""
    row = tx.row(_ONE, (tenant, approval_id))
    return None if row is None else from_row(tx, row)


def lock(tx: Tx, tenant: str, approval_id: str) -> Approval | None:
    """Return an approval that nobody else decides on, or uses, until this transaction ends."""
    row = tx.lock(_ONE, (tenant, approval_id))
    return None if row is None else from_row(tx, row)


def from_row(tx: Tx, row: Any) -> Approval:
    """Return the value that a row of `SELECT` stands for.

    Raises:
        StoreUnavailable: it, or a vote on it, is damaged.
    """
    with reading(f"approval {row[1]}"):
        approval = _approval_of(_checked(row), votes(tx, row[0], row[1]), tx.now)
        yes = sum(decision.decision == "approve" for decision in approval.decisions)
        if approval.status in ("approved", "used") and yes < approval.quorum:
            raise ValueError("a vote is missing")
    return approval


def _checked(row: Any) -> dict[str, Any]:
    check_seal(f"approval {row[1]}", row[:-1], row[-1])
    return dict(zip(COLUMNS, row, strict=False))


def votes(tx: Tx, tenant: str, approval_id: str) -> list[tuple[int, Decision]]:
    """Return what people said about any generation of an approval, in the order of time."""
    found: list[tuple[int, Decision]] = []
    for row in tx.rows(_VOTES, (tenant, approval_id)):
        check_vote(row)
        _, _, generation, person, said, roles, why, at, _ = row
        decision = Decision(person, said, tuple(json.loads(roles)), why, _time(at))
        found.append((generation, decision))
    return found


def check_vote(row: Any) -> None:
    """Refuse a row of `SELECT_VOTES` that is not as it was written.

    Raises:
        StoreUnavailable: it is damaged.
    """
    check_seal(f"a vote on approval {row[1]}", row[:-1], row[-1])


def vote(
    tx: Tx, approval: Approval, by: str, decision: str, roles: tuple[str, ...], reason: str
) -> None:
    """Write down what a person said about the present generation of an approval."""
    values = (
        approval.tenant, approval.id, approval.generation, by, decision, _list(roles), reason,
        tx.now,
    )  # fmt: skip
    tx.run(
        "INSERT INTO votes (tenant, approval_id, generation, person, decision, roles, reason, at,"
        " seal) VALUES (?,?,?,?,?,?,?,?,?)",
        (*values, seal(*values)),
    )


def change(tx: Tx, tenant: str, approval_id: str, **values: Any) -> None:
    """Write columns of an approval, whose row this transaction has locked."""
    row = tx.row(_ONE, (tenant, approval_id))
    if row is None:
        raise StoreUnavailable(f"the approval {approval_id} vanished inside a transaction")
    changed = {**_checked(row), **values}
    write_changes(tx, "approvals", COLUMNS, row[:-1], tuple(changed.values()))


def _approval_of(found: dict[str, Any], said: list[tuple[int, Decision]], now: int) -> Approval:
    return Approval(
        id=found["approval_id"],
        tenant=found["tenant"],
        status=_status(found, now),
        tool=found["tool"],
        arguments=json.loads(found["arguments"]),
        rule=found["rule"],
        run_id=found["run_id"],
        step=found["step"],
        requested_by=found["agent"],
        on_behalf_of=found["subject"],
        generation=found["generation"],
        roles=tuple(json.loads(found["roles"])),
        quorum=found["quorum"],
        allow_edit=bool(found["allow_edit"]),
        created_at=_time(found["created_at"]),
        expires_at=_time(found["expires_at"]),
        effect_id=found["key"],
        payload_hash=found["payload_hash"],
        contract_version=found["contract_version"],
        policy_version=found["policy_version"],
        decisions=tuple(d for generation, d in said if generation == found["generation"]),
        edits=_json(found["edits"]),
        edited_by=found["edited_by"],
        input_schema=_json(found["input_schema"]),
        stage=found["stage"],
    )


def _status(found: Mapping[str, Any], now: int) -> str:
    """An open approval whose time is over is expired, whether or not anybody wrote that down."""
    open_and_late = found["status"] in _OPEN and now >= found["expires_at"]
    return "expired" if open_and_late else str(found["status"])


def _time(micros: int) -> Any:
    return moment(micros)


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def request(tx: Tx, log: RunLog, intent: Intent, ask: Ask, step: int, generation: int) -> Approval:
    """Write down that people have to decide, bound to exactly this payload, and what they see."""
    approval_id = "ap_" + base64.b32encode(os.urandom(16)).decode().lower().rstrip("=")
    preview = dumps(intent.arguments)
    tenant, key = intent.run.tenant, intent.key
    open_ones = (
        "SELECT approval_id FROM approvals WHERE tenant = ? AND key = ? AND status IN (?, ?)"
    )
    for (earlier,) in list(tx.rows(open_ones, (tenant, key, *_OPEN))):
        reload_approval(tx, tenant, earlier)
        change(tx, tenant, earlier, status="superseded")
    values = (
        tenant, approval_id, key, generation, "pending", intent.tool, intent.payload_hash,
        intent.payload_hash, intent.contract_version, intent.policy_version, preview,
        sha256(preview.encode()).hex(), _text(intent.input_schema), ask.rule, _list(ask.roles),
        ask.quorum, int(ask.allow_edit), _list(intent.frozen_fields), intent.run.run_id, step,
        intent.agent, intent.subject, tx.now, tx.now + int(ask.expires * 1_000_000), None, None,
        None, None, _drafted(ask),
    )  # fmt: skip
    tx.run(_INSERT, (*values, seal(*values)))
    log.add(Draft("approval.requested", {
        "approval_id": approval_id, "generation": generation, "rule": ask.rule,
        "roles": list(ask.roles), "quorum": ask.quorum, "payload_hash": intent.payload_hash,
        "preview_hash": sha256(preview.encode()).hex(), **_staged(ask),
    }, step, intent.proposal if ask.stage == "propose" else None))  # fmt: skip
    return reload_approval(tx, intent.run.tenant, approval_id)


def _staged(ask: Ask) -> dict[str, Any]:
    stage = _drafted(ask)
    return {} if stage is None else {"stage": stage}


def _drafted(ask: Ask) -> str | None:
    return ask.stage if ask.stage in DRAFTED else None


def _text(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _list(values: tuple[str, ...]) -> str:
    return json.dumps(list(values))


def rejection(tx: Tx, intent: Intent) -> Approval | None:
    """Return the no that stands for this payload in this run."""
    row = tx.row(
        f"{SELECT} WHERE tenant = ? AND key = ? AND run_id = ? AND requested_hash = ?"
        " AND status = 'rejected'",
        (intent.run.tenant, intent.key, intent.run.run_id, intent.payload_hash),
    )
    return None if row is None else from_row(tx, row)


def is_own(approval: Approval, intent: Intent) -> bool:
    """Return whether somebody who approved would now run the call, or have it run for them.

    The approval was given to another run; who approved there may be who asks here.
    """
    here = {same_person(name) for name in (intent.agent, intent.subject) if name}
    return any(
        d.decision == "approve" and same_person(d.person) in here for d in approval.decisions
    )


def use(tx: Tx, log: RunLog, approval: Approval, step: int) -> None:
    """Use the approval up, in the transaction that starts the call it was given for."""
    change(tx, approval.tenant, approval.id, status="used", used_at=tx.now)
    people = sorted(d.person for d in approval.decisions if d.decision == "approve")
    log.add(Draft("approval.used", {
        "approval_id": approval.id, "generation": approval.generation, "people": people,
        "payload_hash": approval.payload_hash,
    }, step))  # fmt: skip


def expire(tx: Tx, log: RunLog, approval: Approval) -> None:
    """Write down that the time is over; a clock that is set back cannot undo this."""
    stands = "SELECT status FROM approvals WHERE tenant = ? AND approval_id = ?"
    if tx.row(stands, (approval.tenant, approval.id)) in [(status,) for status in _OPEN]:
        change(tx, approval.tenant, approval.id, status="expired")
        data = {"approval_id": approval.id, "generation": approval.generation}
        log.add(Draft("approval.expired", data, approval.step))


def expire_late(tx: Tx) -> None:
    """Write down which open approvals' time is over, as far as this transaction's clock can tell.

    Done for all of them whenever somebody commits: a clock that is set back later, in whatever
    process, finds them expired.
    """
    late = tx.rows(
        "SELECT tenant, run_id, approval_id FROM approvals"
        " WHERE status IN ('pending', 'approved') AND expires_at <= ?",
        (tx.now,),
    )
    for tenant, run_id, approval_id in list(late):
        log = RunLog(tx, RunRef(tenant, run_id, "system:clock"))
        expire(tx, log, reload_approval(tx, tenant, approval_id))
        log.save()


def reload_approval(tx: Tx, tenant: str, approval_id: str) -> Approval:
    """Return an approval that is known to be there, locked."""
    found = lock(tx, tenant, approval_id)
    if found is None:
        raise StoreUnavailable(f"the approval {approval_id} vanished inside a transaction")
    return found


def same_person(name: str) -> str:
    """One person under two spellings of a name is one person; invisible characters are none."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(c for c in folded if unicodedata.category(c) != "Cf").strip()


def is_person(by: str) -> bool:
    """Return whether *by* can be the name of a person: somebody, and neither an agent nor a machine."""
    name = same_person(by)
    return bool(name) and not name.startswith(("agent:", "system:"))
