"""What people say about a waiting call: taken once, from whoever may say it (guarantee G5)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..canonical import canonical, dumps, jsonable, keyed_hash, sha256
from ..errors import ApprovalExpired, DecisionRefused, GuardError, PermissionDenied
from . import approvals, costs
from .approvals import expire, is_person, load, reload_approval, same_person
from .runs import RunLog, hash_key
from .values import Draft, RunRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import Approval
    from ..protocols import Tx


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


def decide(tx: Tx, ruling: Ruling) -> Approval | GuardError:
    """Take one person's decision, or return why it cannot be taken."""
    found = load(tx, ruling.tenant, ruling.approval_id)
    if found is None:
        return DecisionRefused(f"there is no approval {ruling.approval_id!r} in this tenant")
    log = RunLog(tx, RunRef(found.tenant, found.run_id, f"person:{ruling.by}"))
    approval = reload_approval(tx, found.tenant, found.id)
    refusal = _refusal(tx, log, approval, ruling)
    if refusal is None:
        if ruling.decision == "edit":
            refusal = _edit(tx, log, approval, ruling)
        else:
            _vote(tx, log, approval, ruling)
    if refusal is None:
        costs.count_decision(tx, log, ruling.by, approval.step)
    log.save()
    return refusal or reload_approval(tx, approval.tenant, approval.id)


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
    person = same_person(ruling.by)
    if not is_person(ruling.by):
        return PermissionDenied("a decision needs the name of a person: give by=")
    return _involved(tx, approval, ruling, person) or _not_entitled(approval, ruling, person)


def _involved(tx: Tx, approval: Approval, ruling: Ruling, person: str) -> GuardError | None:
    for what, name in (
        ("asked for this call", approval.requested_by),
        ("is the person this call is made for", approval.on_behalf_of),
    ):
        if name and person == same_person(name) and ruling.decision != "reject":
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
    if any(same_person(d.person) == person for d in approval.decisions):
        return DecisionRefused(
            f"{ruling.by} has decided on {approval.id} already; a person counts once"
        )
    return None


def _editors(tx: Tx, approval: Approval) -> set[str]:
    """Return everybody who edited the call, in any generation."""
    said = approvals.votes(tx, approval.tenant, approval.id)
    return {same_person(d.person) for _, d in said if d.decision == "edit"}


def _vote(tx: Tx, log: RunLog, approval: Approval, ruling: Ruling) -> None:
    _write(tx, approval, ruling)
    yes = sum(d.decision == "approve" for d in approval.decisions) + 1
    if ruling.decision == "reject":
        status = "rejected"
    else:
        status = "approved" if yes >= approval.quorum else "pending"
    approvals.change(tx, approval.tenant, approval.id, status=status, decided_at=tx.now)
    _tell(log, approval, ruling, {"status": status, "votes": yes if status != "rejected" else 0})


def _write(tx: Tx, approval: Approval, ruling: Ruling) -> None:
    approvals.vote(tx, approval, ruling.by, ruling.decision, ruling.roles, ruling.reason)


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
    _write(tx, approval, ruling)  # on a generation that ends here
    merged = {**json.loads(earlier or "{}"), **edits}
    bound = keyed_hash(hash_key(tx, approval.tenant), canonical([requested, merged]))
    shown = dumps({**approval.arguments, **merged})
    approvals.change(
        tx, approval.tenant, approval.id, generation=approval.generation + 1, edits=dumps(merged),
        edited_by=ruling.by, arguments=shown, arguments_hash=sha256(shown.encode()).hex(),
        payload_hash=bound,
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
