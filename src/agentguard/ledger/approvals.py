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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..canonical import canonical, dumps, jsonable, keyed_hash, sha256
from ..errors import (
    ApprovalExpired,
    DecisionRefused,
    GuardError,
    PermissionDenied,
    StoreUnavailable,
)
from ..model import Approval, Decision, moment
from .runs import RunLog, hash_key
from .values import Ask, Draft, Intent, RunRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..protocols import Tx

COLUMNS = (
    "approval_id", "tenant", "status", "tool", "arguments", "rule", "run_id", "step", "agent",
    "subject", "generation", "roles", "quorum", "allow_edit", "created_at", "expires_at", "key",
    "payload_hash", "contract_version", "policy_version", "edits", "edited_by", "input_schema",
)  # fmt: skip
SELECT = f"SELECT {', '.join(COLUMNS)} FROM approvals"  # noqa: S608 - fixed names
_ONE = f"{SELECT} WHERE tenant = ? AND approval_id = ?"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a person says about a waiting call."""

    tenant: str
    approval_id: str
    decision: str
    by: str
    reason: str = ""
    roles: tuple[str, ...] = ()
    edits: Mapping[str, Any] | None = None
    generation: int | None = None


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
        StoreUnavailable: it cannot be read.
    """
    try:
        return _approval_of(tx, row)
    except (ValueError, TypeError) as error:
        raise StoreUnavailable(f"approval {row[0]} is damaged; see agentguard doctor") from error


def _approval_of(tx: Tx, row: Any) -> Approval:
    found: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
    votes = tx.rows(
        "SELECT person, decision, roles, reason, at FROM votes"
        " WHERE tenant = ? AND approval_id = ? AND generation = ? ORDER BY at",
        (found["tenant"], found["approval_id"], found["generation"]),
    )
    decisions = tuple(
        Decision(person, said, tuple(json.loads(roles)), why, _time(at))
        for person, said, roles, why, at in votes
    )
    return Approval(
        id=found["approval_id"],
        tenant=found["tenant"],
        status=_status(tx, found),
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
        decisions=decisions,
        edits=_json(found["edits"]),
        edited_by=found["edited_by"],
        input_schema=_json(found["input_schema"]),
    )


def _status(tx: Tx, found: Mapping[str, Any]) -> str:
    """An open approval whose time is over is expired, whether or not anybody wrote that down."""
    open_and_late = found["status"] in ("pending", "approved") and tx.now >= found["expires_at"]
    return "expired" if open_and_late else str(found["status"])


def _time(micros: int) -> Any:
    return moment(micros)


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def request(tx: Tx, log: RunLog, intent: Intent, ask: Ask, step: int, generation: int) -> Approval:
    """Write down that people have to decide, bound to exactly this payload, and what they see."""
    approval_id = "ap_" + base64.b32encode(os.urandom(16)).decode().lower().rstrip("=")
    preview = dumps(intent.arguments)
    tx.run(
        "UPDATE approvals SET status = 'superseded' WHERE tenant = ? AND key = ?"
        " AND status IN ('pending', 'approved')",
        (intent.run.tenant, intent.key),
    )
    tx.run(
        "INSERT INTO approvals (tenant, approval_id, key, generation, status, tool, requested_hash,"
        " payload_hash, contract_version, policy_version, arguments, arguments_hash, input_schema,"
        " rule, roles, quorum, allow_edit, frozen_fields, run_id, step, agent, subject, created_at,"
        " expires_at) VALUES (?,?,?,?,'pending',?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (intent.run.tenant, approval_id, intent.key, generation, intent.tool, intent.payload_hash,
         intent.payload_hash, intent.contract_version, intent.policy_version, preview,
         sha256(preview.encode()).hex(), _text(intent.input_schema), ask.rule, _list(ask.roles),
         ask.quorum, int(ask.allow_edit), _list(intent.frozen_fields), intent.run.run_id, step,
         intent.agent, intent.subject, tx.now, tx.now + int(ask.expires * 1_000_000)),
    )  # fmt: skip
    log.add(Draft("approval.requested", {
        "approval_id": approval_id, "generation": generation, "rule": ask.rule,
        "roles": list(ask.roles), "quorum": ask.quorum, "payload_hash": intent.payload_hash,
        "preview_hash": sha256(preview.encode()).hex(),
    }, step))  # fmt: skip
    return _locked(tx, intent.run.tenant, approval_id)


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
    here = {_same(name) for name in (intent.agent, intent.subject) if name}
    return any(d.decision == "approve" and _same(d.person) in here for d in approval.decisions)


def use(tx: Tx, log: RunLog, approval: Approval, step: int) -> None:
    """Use the approval up, in the transaction that starts the call it was given for."""
    tx.run(
        "UPDATE approvals SET status = 'used', used_at = ? WHERE tenant = ? AND approval_id = ?",
        (tx.now, approval.tenant, approval.id),
    )
    people = sorted(d.person for d in approval.decisions if d.decision == "approve")
    log.add(Draft("approval.used", {
        "approval_id": approval.id, "generation": approval.generation, "people": people,
        "payload_hash": approval.payload_hash,
    }, step))  # fmt: skip


def expire(tx: Tx, log: RunLog, approval: Approval) -> None:
    """Write down that the time is over; a clock that is set back cannot undo this."""
    changed = tx.changed(
        "UPDATE approvals SET status = 'expired' WHERE tenant = ? AND approval_id = ?"
        " AND status IN ('pending', 'approved')",
        (approval.tenant, approval.id),
    )
    if changed:
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
        expire(tx, log, _locked(tx, tenant, approval_id))
        log.save()


def decide(tx: Tx, ruling: Ruling) -> Approval | GuardError:
    """Take one person's decision, or return why it cannot be taken."""
    found = load(tx, ruling.tenant, ruling.approval_id)
    if found is None:
        return DecisionRefused(f"there is no approval {ruling.approval_id!r} in this tenant")
    log = RunLog(tx, RunRef(found.tenant, found.run_id, f"person:{ruling.by}"))
    approval = _locked(tx, found.tenant, found.id)
    refusal = _refusal(tx, log, approval, ruling)
    if refusal is None:
        if ruling.decision == "edit":
            refusal = _edit(tx, log, approval, ruling)
        else:
            _vote(tx, log, approval, ruling)
    log.save()
    return refusal or _locked(tx, approval.tenant, approval.id)


def _locked(tx: Tx, tenant: str, approval_id: str) -> Approval:
    found = lock(tx, tenant, approval_id)
    if found is None:
        raise StoreUnavailable(f"the approval {approval_id} vanished inside a transaction")
    return found


def _refusal(tx: Tx, log: RunLog, approval: Approval, ruling: Ruling) -> GuardError | None:
    if ruling.decision not in ("approve", "reject", "edit"):
        return DecisionRefused(
            f"{ruling.decision!r} is not a decision; say approve, reject or edit"
        )
    if approval.status == "expired":
        expire(tx, log, approval)
        return ApprovalExpired(f"{approval.id} expired at {approval.expires_at:%Y-%m-%d %H:%M} UTC")
    if approval.status != "pending":
        return DecisionRefused(f"{approval.id} is {approval.status} already; nothing was changed")
    if ruling.generation not in (None, approval.generation):
        return DecisionRefused(f"{approval.id} was edited meanwhile; look at it again, then decide")
    return _not_permitted(tx, approval, ruling)


def _not_permitted(tx: Tx, approval: Approval, ruling: Ruling) -> GuardError | None:
    """Refuse whoever asked, whoever it is done for, whoever edited, and whoever lacks the role."""
    person = _same(ruling.by)
    if not person or person.startswith(("agent:", "system:")):
        return PermissionDenied("a decision needs the name of a person: give by=")
    return _involved(tx, approval, ruling, person) or _not_entitled(approval, ruling, person)


def _involved(tx: Tx, approval: Approval, ruling: Ruling, person: str) -> GuardError | None:
    for what, name in (
        ("asked for this call", approval.requested_by),
        ("is the person this call is made for", approval.on_behalf_of),
    ):
        if name and person == _same(name) and ruling.decision != "reject":
            return PermissionDenied(
                f"{ruling.by} {what} and may not decide on it; ask somebody else"
            )
    if ruling.decision == "approve" and person in _editors(tx, approval):
        return PermissionDenied(f"{ruling.by} edited this call and may not approve it; ask another")
    return None


def _not_entitled(approval: Approval, ruling: Ruling, person: str) -> GuardError | None:
    if approval.roles and not set(approval.roles) & set(ruling.roles):
        wanted = " or ".join(approval.roles)
        return PermissionDenied(
            f"{approval.id} needs the role {wanted}; {ruling.by} came without it"
        )
    if ruling.decision == "reject" and not ruling.reason.strip():
        return DecisionRefused("a rejection needs a reason: the agent is told, so it can do better")
    if any(_same(d.person) == person for d in approval.decisions):
        return DecisionRefused(
            f"{ruling.by} has decided on {approval.id} already; a person counts once"
        )
    return None


def _editors(tx: Tx, approval: Approval) -> set[str]:
    """Return everybody who edited the call, in any generation."""
    rows = tx.rows(
        "SELECT person FROM votes WHERE tenant = ? AND approval_id = ? AND decision = 'edit'",
        (approval.tenant, approval.id),
    )
    return {_same(person) for (person,) in rows}


def _same(name: str) -> str:
    """One person under two spellings of a name is one person; invisible characters are none."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(c for c in folded if unicodedata.category(c) != "Cf").strip()


def _vote(tx: Tx, log: RunLog, approval: Approval, ruling: Ruling) -> None:
    _write_vote(tx, approval, ruling, approval.generation)
    yes = sum(d.decision == "approve" for d in approval.decisions) + 1
    if ruling.decision == "reject":
        status = "rejected"
    else:
        status = "approved" if yes >= approval.quorum else "pending"
    tx.run(
        "UPDATE approvals SET status = ?, decided_at = ? WHERE tenant = ? AND approval_id = ?"
        " AND status = 'pending'",
        (status, tx.now, approval.tenant, approval.id),
    )
    _tell(log, approval, ruling, {"status": status, "votes": yes if status != "rejected" else 0})


def _write_vote(tx: Tx, approval: Approval, ruling: Ruling, generation: int) -> None:
    tx.run(
        "INSERT INTO votes (tenant, approval_id, generation, person, decision, roles, reason, at)"
        " VALUES (?,?,?,?,?,?,?,?)",
        (approval.tenant, approval.id, generation, ruling.by, ruling.decision,
         _list(ruling.roles), ruling.reason, tx.now),
    )  # fmt: skip


def _tell(log: RunLog, approval: Approval, ruling: Ruling, more: Mapping[str, Any]) -> None:
    data = {
        "approval_id": approval.id, "generation": approval.generation,
        "decision": ruling.decision, "by": ruling.by, "roles": list(ruling.roles), **more,
    }  # fmt: skip
    content = {"reason": ruling.reason} if ruling.reason else None
    log.add(Draft("approval.decided", data, approval.step, content))


def _edit(tx: Tx, log: RunLog, approval: Approval, ruling: Ruling) -> GuardError | None:
    """Begin a new generation with other arguments; editing is not a vote."""
    edits = jsonable(dict(ruling.edits or {}), "edits")
    row = tx.row(
        "SELECT frozen_fields, requested_hash, edits FROM approvals"
        " WHERE tenant = ? AND approval_id = ?",
        (approval.tenant, approval.id),
    )
    frozen, requested, earlier = row or ("[]", "", None)
    refusal = _bad_edit(approval, edits, set(json.loads(frozen)))
    if refusal is not None:
        return refusal
    _write_vote(tx, approval, ruling, approval.generation)  # of a generation that ends here
    merged = {**(_json(earlier) or {}), **edits}
    bound = keyed_hash(hash_key(tx, approval.tenant), canonical([requested, merged]))
    shown = dumps({**approval.arguments, **merged})
    tx.run(
        "UPDATE approvals SET generation = generation + 1, edits = ?, edited_by = ?, arguments = ?,"
        " arguments_hash = ?, payload_hash = ? WHERE tenant = ? AND approval_id = ?",
        (dumps(merged), ruling.by, shown, sha256(shown.encode()).hex(), bound,
         approval.tenant, approval.id),
    )  # fmt: skip
    more = {"new_generation": approval.generation + 1, "payload_hash": bound,
            "changed": sorted(edits)}  # fmt: skip
    _tell(log, approval, ruling, more)
    return None


def _bad_edit(approval: Approval, edits: Mapping[str, Any], frozen: set[str]) -> GuardError | None:
    if not approval.allow_edit:
        return DecisionRefused(
            f"{approval.tool} does not allow edits: approve or reject, or set allow_edit=True"
        )
    if not edits:
        return DecisionRefused("an edit needs at least one changed argument")
    for name in edits:
        if name not in approval.arguments:
            return DecisionRefused(f"{approval.tool} has no argument {name!r} to edit")
        if name in frozen:
            return DecisionRefused(
                f"{name!r} is part of the idempotency key or hidden, so it cannot be edited: reject the"
                " call and let the agent ask again"
            )
    return None
