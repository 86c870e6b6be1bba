"""Safe endings: made once a run, written in the transaction that closes the run's write path.

Theory of operation. The run's row says how it has ended (`ending`, JSON); while that is not
answered, no start passes. A draft and a question are written by `conclude` alone. Whatever acts on
the world, such as filing a ticket, is an effect of its own under a key of the run: `begin` makes its
row durable before anything is sent, `conclude` settles it and closes the path. A row whose owner
vanished is in doubt, as every effect is; it is begun again only where the backend drops repeats.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..canonical import dumps, plain_text
from ..errors import DecisionRefused, GuardError
from ..model import EffectState, Ending
from . import switches
from .approvals import is_person, same_person
from .rows import EffectRow, lock_effect
from .runs import RunLog
from .sealed import reading
from .settling import mark_doubt, mark_lost, may_still_act
from .values import Draft, Pending, RunRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import Usage
    from ..protocols import Tx

SCOPE = "fallback"
_MAY_ACT_US = 60_000_000
_LONGEST_ANSWER = 10_000
_DONE = (EffectState.SUCCEEDED, EffectState.FAILED_FINAL)


@dataclass(frozen=True, slots=True)
class Wish:
    """An ending about to be made.

    Attributes:
        kind: `draft`, `ticket`, `ask`, or the name of a fallback of the user's own.
        told: the call that is not made, as JSON types: what a ticket says and the record keeps.
        claim_id: names the start of what is sent, so that an interrupted one can be found.
        repeatable: the backend drops repeats of the key.
    """

    run: RunRef
    kind: str
    told: Mapping[str, Any]
    claim_id: str = ""
    repeatable: bool = False
    pending: Pending = field(default_factory=Pending)


@dataclass(frozen=True, slots=True)
class Begun:
    """What is to be sent may be sent, under this key and fence; *told* is what it says.

    What was begun earlier is sent as it was: one key, one payload.
    """

    key: str
    fence: int
    told: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Underway:
    """Somebody else is sending it."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been sent, and nothing may send it again; *may_act* says that it still can."""

    key: str
    fence: int
    told: Mapping[str, Any]
    may_act: bool


@dataclass(frozen=True, slots=True)
class Done:
    """It was sent, as a person has ruled, or it never will be (*reference* is None)."""

    reference: str | None


@dataclass(frozen=True, slots=True)
class End:
    """How an ending came out.

    Attributes:
        key: the effect that sent something; empty if nothing was sent.
        state: what became of that.
        instead_of: what was declared and could not be had, because of *why*.
    """

    kind: str
    reference: str = ""
    text: str = ""
    key: str = ""
    fence: int = 0
    state: EffectState = EffectState.SUCCEEDED
    instead_of: str = ""
    why: str = ""
    told: Mapping[str, Any] | None = None

    def as_draft(self, why: str, state: EffectState | None = None) -> End:
        """Return the draft that is written because this could not be had."""
        return replace(
            self, kind="draft", instead_of=self.kind, why=why, reference="", text="",
            state=state or self.state,
        )  # fmt: skip


Answer = Begun | Underway | Unknown | Done | Ending | GuardError


def begin(tx: Tx, wish: Wish) -> tuple[Answer, Usage]:
    """Make it durable that something is about to be sent, unless the run has ended already."""
    log = RunLog(tx, wish.run)
    log.absorb(wish.pending)
    return _begin(tx, log, wish), log.save()


def _begin(tx: Tx, log: RunLog, wish: Wish) -> Answer:
    if log.closed() is not None:
        return ending_of(tx, log)
    key = _key(log)
    row = lock_effect(tx, wish.run.tenant, key)
    if row is not None and row.state is EffectState.EXECUTING:
        if row.owner is None or row.owner == tx.owner or not tx.is_lost(row.owner):
            return Underway()
        mark_lost(tx, log, row)
    if row is not None and row.state in _DONE:
        return Done(_reference(row) if row.state is EffectState.SUCCEEDED else None)
    same = row is not None and row.tool.endswith(f".{wish.kind}")
    if row is not None and row.state is EffectState.IN_DOUBT and not (wish.repeatable and same):
        return Unknown(key, row.fence, _told(row), may_still_act(tx, row))
    agent = str(wish.told.get("agent") or "")
    stopped = switches.closed(tx, wish.run.tenant, agent, _tool(wish, wish.told))
    return stopped or _start(tx, log, wish, row, key)


def _key(log: RunLog) -> str:
    """One key for all that wish to end a run; a run whose question was answered may end once more."""
    return f"fallback/{log.ref.run_id}/{2 if log.ending else 1}"


def _tool(wish: Wish, told: Mapping[str, Any]) -> str:
    return f"{told['tool']}.{wish.kind}"


def _told(row: EffectRow) -> dict[str, Any]:
    """What was begun to be sent stands where the result comes to stand."""
    found = json.loads((row.result or "j{}")[1:])
    return found if isinstance(found, dict) else {}


def _reference(row: EffectRow) -> str:
    """A person who rules that it was sent may say under which reference."""
    found = json.loads((row.result or "jnull")[1:])
    return str(found or "")


def _start(tx: Tx, log: RunLog, wish: Wish, known: EffectRow | None, key: str) -> Begun:
    row = known or EffectRow(wish.run.tenant, key, created_at=tx.now)
    told = _told(row) or _with_step(wish.told, log, key)
    row.tool, row.scope, row.effect, row.contract_version = _tool(wish, told), SCOPE, "write", "1"
    row.run_id, row.step, row.state = wish.run.run_id, told["step"], EffectState.EXECUTING
    row.fence, row.attempt = row.fence + 1, row.fence + 1
    row.owner, row.claim_id, row.result = tx.owner, wish.claim_id, f"j{dumps(told)}"
    row.first_started_at, row.started_at = row.first_started_at or tx.now, tx.now
    row.finished_at = row.doubt_reason = row.error = row.lease_until = None
    row.insert(tx) if known is None else row.update(tx)
    fact = {"key": key, "fence": row.fence, "attempt": row.attempt}
    log.add(Draft("step.started", fact, row.step))
    return Begun(key, row.fence, told)


def _with_step(told: Mapping[str, Any], log: RunLog, key: str = "") -> dict[str, Any]:
    """A call that was refused before it had a step was given one with its refusal.

    One that is over budget has none; it is told beside the steps.
    """
    step = log.last_step if told["step"] is None else told["step"]
    return {**told, "step": step, **({"key": key} if key else {})}


def conclude(tx: Tx, wish: Wish, end: End) -> tuple[Ending, Usage]:
    """Write how the run has ended and close its write path; the first to do so is believed."""
    log = RunLog(tx, wish.run)
    log.absorb(wish.pending)
    settled = _settle(tx, log, end)
    if log.closed() is not None:
        if settled:
            log.add(Draft("fallback.late", {"key": end.key, "reference": end.reference}))
        return ending_of(tx, log), log.save()
    if end.kind == "ask" and log.ending is not None:
        end = end.as_draft("a question was asked in this run already")
    told = end.told or _with_step(wish.told, log)
    _close(log, end, told)
    return ending_of(tx, log), log.save()


def _place(log: RunLog, told: Mapping[str, Any]) -> str:
    return f"{log.ref.run_id}/{told['step']}" if told["step"] else log.ref.run_id


def _close(log: RunLog, end: End, told: Mapping[str, Any]) -> None:
    reference = end.reference or (_place(log, told) if end.kind == "draft" else "")
    fact: dict[str, Any] = {
        "ending": end.kind, "reference": reference, "because": told["because"], "tool": told["tool"],
        "key": end.key or None, "instead_of": end.instead_of or None,
    }  # fmt: skip
    content = {"arguments": told["arguments"], "message": told["message"], "text": end.text,
               "why": end.why}  # fmt: skip
    log.add(Draft(
        "fallback", {n: v for n, v in fact.items() if v is not None}, told["step"],
        {name: value for name, value in content.items() if value},
    ))  # fmt: skip
    log.ending = plain_text({
        "ending": end.kind, "reference": reference, "because": told["because"],
        "tool": told["tool"], "seq": log.head_seq, "step": told["step"],
    })  # fmt: skip


def _settle(tx: Tx, log: RunLog, end: End) -> bool:
    """Settle what was sent, if its fence is still the last one; whether there was something."""
    row = lock_effect(tx, log.ref.tenant, end.key) if end.key else None
    if row is None or row.fence != end.fence or row.state is not EffectState.EXECUTING:
        return False
    if end.state is EffectState.IN_DOUBT:
        mark_doubt(tx, log, row, "no_answer")
        return True
    done = end.state is EffectState.SUCCEEDED
    row.state, row.finished_at = end.state, tx.now
    row.result, row.result_state = (f"j{dumps(end.reference)}", "stored") if done else (None, None)
    row.error = None if done else json.dumps({"kind": "not_filed", "message": end.why[:500]})
    row.update(tx)
    return True


def found(tx: Tx, wish: Wish, unknown: Unknown, reference: str) -> tuple[bool, Usage]:
    """Take what the backend says: it has what was sent; the doubt is over."""
    log = RunLog(tx, wish.run)
    row = lock_effect(tx, wish.run.tenant, unknown.key)
    known = row is not None and row.state is EffectState.IN_DOUBT and row.fence == unknown.fence
    if row is not None and known:
        row.state, row.doubt_reason, row.finished_at = EffectState.SUCCEEDED, None, tx.now
        row.result, row.result_state, row.lease_until = f"j{dumps(reference)}", "stored", None
        row.update(tx)
        fact = {"key": row.key, "ruling": "happened", "fence": row.fence}
        log.add(Draft("effect.resolved", fact, row.step, actor="system:reconcile"))
    return known, log.save()


def abandon(tx: Tx, wish: Wish, key: str, may_act: bool) -> Usage:  # noqa: FBT001 - by place
    """Say for a caller that was interrupted that nobody knows whether it was sent."""
    log = RunLog(tx, wish.run)
    row = lock_effect(tx, wish.run.tenant, key or _key(log))
    if row is not None and row.claim_id == wish.claim_id and row.state is EffectState.EXECUTING:
        mark_doubt(tx, log, row, "cancelled", may_act_us=_MAY_ACT_US if may_act else 0)
    return log.save()


def ending_of(tx: Tx, log: RunLog) -> Ending:
    """Return how a run has ended, with its text while that is kept."""
    return read_ending(tx, log.ref, json.loads(log.ending or "{}"))


def read_ending(tx: Tx, ref: RunRef, kept: Mapping[str, Any]) -> Ending:
    """Return an ending as users see it."""
    content = _content(tx, ref, kept["seq"])
    said = _content(tx, ref, kept["answered"]) if "answered" in kept else {}
    return Ending(
        kind=kept["ending"], reference=kept["reference"], text=content.get("text", ""),
        cause=kept["because"], tool=kept["tool"], step=kept["step"] or None,
        arguments=content.get("arguments"), why=content.get("why", ""),
        answered_by=kept.get("by"), answer=said.get("answer"),
    )  # fmt: skip


def _content(tx: Tx, ref: RunRef, seq: int) -> dict[str, Any]:
    row = tx.row(
        "SELECT body FROM events WHERE tenant = ? AND run_id = ? AND seq = ?",
        (ref.tenant, ref.run_id, seq),
    )
    with reading(f"the record of run {ref.run_id}"):
        kept: dict[str, Any] = json.loads(row[0]) if row and row[0] else {}
        return kept


def answer(
    tx: Tx, tenant: str, run_id: str, text: str, by: str
) -> GuardError | Ending:  # fmt: skip
    """Take a person's answer to the question of a run; it opens the run's write path again."""
    log = RunLog(tx, RunRef(tenant, run_id, f"person:{by}"))
    refusal = log.stopped() or _cannot_answer(log, text, by)
    if refusal is not None:
        return refusal
    kept = json.loads(log.ending or "{}")
    log.add(Draft("answered", {"by": by, "question": kept["seq"]}, kept["step"],
                  {"answer": text}))  # fmt: skip
    log.ending = plain_text({**kept, "answered": log.head_seq, "by": by})
    log.leaf()
    log.save()
    return ending_of(tx, log)


def _cannot_answer(log: RunLog, text: str, by: str) -> GuardError | None:
    run = log.ref.run_id
    kept = json.loads(log.ending or "{}")
    if kept.get("ending") != "ask":
        return DecisionRefused(f"run {run} has asked nothing; agentguard runs show {run} says more")
    if "answered" in kept:
        return DecisionRefused(f"the question of run {run} was answered by {kept['by']} already")
    if not is_person(by) or same_person(by) == same_person(log.agent):
        return DecisionRefused("an answer needs the name of a person, not of the agent: give by=")
    if not text.strip() or len(text) > _LONGEST_ANSWER:
        return DecisionRefused(f"an answer is a text of 1 to {_LONGEST_ANSWER} characters")
    return None


def look(tx: Tx, ref: RunRef) -> Ending | None:
    """Return how a run has ended, if it has, answered or not."""
    log = RunLog(tx, ref)
    return None if log.ending is None else ending_of(tx, log)
