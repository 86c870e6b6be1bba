"""Runs and their record: one hash chain a run, one unit of work a transaction."""

from __future__ import annotations

import contextlib
import json
import os
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ..canonical import canonical, plain_text, quoted, sha256
from ..errors import BudgetExceeded, ConfigurationError, RunHalted, StoreUnavailable
from ..model import Limits, Usage, dollars
from ..protocols import Asked
from . import tree
from .sealed import check_seal, reading, write_changes
from .values import NEW_STEP, Draft, Pending, RunRef

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..protocols import Tx

_EMPTY_HASH = bytes(32)
COUNTERS = (
    "status",
    "part",
    "started_at",
    "part_started_at",
    "updated_at",
    "active_us",
    "steps",
    "last_step",
    "model_calls",
    "tool_calls",
    "spent",
    "held",
    "input_tokens",
    "output_tokens",
    "cost_complete",
    "head_seq",
    "head_hash",
    "finished_at",
    "error",
    "plan",
    "ending",
)
GIVEN = ("workflow", "agent", "subject", "limits", "policy_version", "trace")
"""With these a run is entered."""
SEALED = (*COUNTERS, *GIVEN)
SELECT_SEALED = f"SELECT tenant, run_id, {', '.join(SEALED)}, seal FROM runs"  # noqa: S608
_SELECT = f"{SELECT_SEALED} WHERE tenant = ? AND run_id = ?"
_SEAL = "SELECT seal FROM runs WHERE tenant = ? AND run_id = ?"
_COLUMNS = ("tenant", "run_id", *SEALED)


def lock_asked(ref: RunRef) -> Asked:
    """Return the question by which everybody locks a run."""
    return Asked("lock", _SEAL, (ref.tenant, ref.run_id), early=True)


def asked(ref: RunRef) -> list[Asked]:
    """Return the questions that a `RunLog` begins with."""
    lock = lock_asked(ref)
    return (
        [lock] if ref.last else [lock, Asked("row", _SELECT, lock.values, early=True, under=lock)]
    )


def _values(tx: Tx, ref: RunRef) -> tuple[Any, ...]:
    """Lock the run's row and return it; one that stands under its last seal is not read again."""
    values: tuple[Any, ...]
    place = (ref.tenant, ref.run_id)
    found = tx.lock(_SEAL, place)
    if found is not None and ref.last and found[0] is not None:
        values, sealed = ref.last
        if bytes(found[0]) == sealed:
            return values
    row = None if found is None else tx.row(_SELECT, place)
    if row is None:
        raise ConfigurationError(f"run {ref.run_id!r} is not in this store")
    values = row[:-1]
    check_seal(f"run {ref.run_id}", values, row[-1])
    ref.last[:] = values, bytes(row[-1])
    return values


class RunLog:
    """A run's row and the end of its chain, locked and loaded once, written once per transaction.

    Raises:
        ConfigurationError: there is no such run.
        StoreUnavailable: its row is not as it was written.
    """

    __slots__ = (*SEALED, "_tx", "_was", "flying", "ref")

    def __init__(self, tx: Tx, ref: RunRef) -> None:
        self._was = _values(tx, ref)
        (_, _, self.status, self.part, self.started_at, self.part_started_at, self.updated_at,
         self.active_us, self.steps, self.last_step, self.model_calls, self.tool_calls, self.spent,
         self.held, self.input_tokens, self.output_tokens, self.cost_complete, self.head_seq,
         self.head_hash, self.finished_at, self.error, self.plan, self.ending, self.workflow,
         self.agent, self.subject, self.limits, self.policy_version, self.trace) = self._was  # fmt: skip
        self._tx, self.ref, self.flying = tx, ref, (0, 0)

    status: str
    part: int
    started_at: int
    part_started_at: int
    updated_at: int
    active_us: int
    steps: int
    last_step: int
    model_calls: int
    tool_calls: int
    spent: int
    held: int
    input_tokens: int
    output_tokens: int
    cost_complete: int
    head_seq: int
    head_hash: bytes
    finished_at: int | None
    error: str | None
    plan: int | None
    ending: str | None
    workflow: str
    agent: str
    subject: str | None
    limits: str
    policy_version: str
    trace: str | None

    def add(self, draft: Draft) -> None:
        """Append one event to the chain, inside the transaction of the change it tells of."""
        self._append(draft, draft.step)

    def _append(self, draft: Draft, step: int | None) -> None:
        seq, at = self.head_seq + 1, self._tx.now
        data, salt, body = draft.data, None, None
        if draft.content is not None:
            salt, body = os.urandom(16), plain_text(draft.content)
            data = {**data, "content": commitment(salt, body)}
        text = plain_text(data)
        actor = draft.actor or self.ref.actor
        self.head_hash = link(self.ref, seq, at, step, draft.kind, actor, text, self.head_hash)
        self.head_seq = seq
        self._tx.run(
            "INSERT INTO events (tenant, run_id, seq, at, step, kind, actor, data, hash, salt, body)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (self.ref.tenant, self.ref.run_id, seq, at, step, draft.kind, actor, text,
             self.head_hash, salt, body),
        )  # fmt: skip

    def next_step(self) -> int:
        """Give out a step number and count it."""
        self.steps += 1
        self.last_step += 1
        return self.last_step

    def absorb(self, pending: Pending | None) -> None:
        """Write the events that waited for this commit, before anything newer."""
        if pending is None:
            return
        self.flying = (pending.flying_steps, pending.flying_tools)
        if pending.drafts:
            self._tx.after_commit(pending.note_written)
            self.spent += pending.spent
            self.cost_complete = int(bool(self.cost_complete) and not pending.unpriced)
        for draft in pending.drafts:
            # The draft stays as it is: if this commit fails, the next one numbers it again.
            self._append(draft, self.next_step() if draft.step == NEW_STEP else draft.step)
        self.tool_calls += pending.tool_calls

    def stopped(self) -> RunHalted | None:
        """Return the refusal, if an operator stopped this run."""
        if self.status == "cancelled" or (self.status == "halted" and self.ending is None):
            return RunHalted(f"run {self.ref.run_id} is {self.status}: {self.error or 'no reason'}")
        return None

    def closed(self) -> RunHalted | None:
        """Return the refusal of whatever would write, if this run has ended safely."""
        if self.ending is None or (ending := json.loads(self.ending)).get("answered"):
            return None
        if ending["ending"] == "ask":
            mend = f"answer it: agentguard runs answer {self.ref.run_id} TEXT --by NAME"
        else:
            mend = f"see agentguard runs show {self.ref.run_id}"
        return RunHalted(
            f"run {self.ref.run_id} is closed by its fallback"
            f" ({ending['ending']} {ending['reference']}): {mend}"
        )

    def over(
        self, limits: Limits, *, step: bool, tool: bool, model: bool, cost: int
    ) -> BudgetExceeded | None:
        """Return the refusal, if this call would cross one of the run's limits."""
        active = (self.active_us + self._tx.now - self.part_started_at) / 1_000_000
        for name, limit, used, more in (
            ("max_steps", limits.max_steps, self.steps + self.flying[0], int(step)),
            ("max_tool_calls", limits.max_tool_calls, self.tool_calls + self.flying[1], int(tool)),
            ("max_model_calls", limits.max_model_calls, self.model_calls, int(model)),
        ):
            if limit is not None and more and used + more > limit:
                return exceeded(name, limit, used, self.ref.run_id)
        if limits.max_seconds is not None and active > limits.max_seconds:
            return exceeded("max_seconds", limits.max_seconds, round(active, 3), self.ref.run_id)
        used_money = self.spent + self.held
        if limits.max_spend is not None and used_money + cost > limits.max_spend:
            limit_usd, used_usd = dollars(limits.max_spend), dollars(used_money)
            return exceeded("max_spend_usd", limit_usd, used_usd, self.ref.run_id)
        return None

    def usage(self) -> Usage:
        """Return what the run has used, this transaction included."""
        return Usage(
            self.steps, self.model_calls, self.tool_calls, self.spent, self.held,
            self.input_tokens, self.output_tokens, bool(self.cost_complete),
        )  # fmt: skip

    def leaf(self) -> None:
        """Put the head of this chain into its tenant's log, so that no run can vanish.

        It gets its place there later: giving it here would have all runs of a tenant wait for
        each other's commits.
        """
        tenant, run_id = self.ref.tenant, self.ref.run_id
        self._tx.run(
            "INSERT INTO leaves (tenant, run_id, seq, hash) VALUES (?,?,?,?)",
            (tenant, run_id, self.head_seq, leaf_of(run_id, self.head_seq, self.head_hash)),
        )

    def save(self) -> Usage:
        """Write the run's row and return its usage."""
        if self.ref.actor.startswith("agent:"):  # what people decide meanwhile is no activity
            self.updated_at = self._tx.now
        now = (self.ref.tenant, self.ref.run_id, *_sealed(self))
        sealed = write_changes(self._tx, "runs", _COLUMNS, self._was, now)
        if sealed is not None:
            self._was = now
            self.ref.last[:] = now, sealed
        return self.usage()


_sealed = attrgetter(*SEALED)


def exceeded(name: str, limit: object, used: object, run_id: str) -> BudgetExceeded:
    """Return the refusal that names the limit and how much of it is used."""
    sentence = f"{name} is {limit} and {used} is used: the call was not started"
    return BudgetExceeded(sentence, budget=name, limit=str(limit), used=str(used), run_id=run_id)


@contextlib.contextmanager
def record_of(tx: Tx, log: RunLog, run_id: str) -> Generator[RunLog]:
    """Give the record of *run_id*: an effect's budget and doubt stay with the run that began it."""
    if run_id == log.ref.run_id:
        yield log
        return
    other = RunLog(tx, RunRef(log.ref.tenant, run_id, log.ref.actor))
    yield other
    other.save()


def link(
    ref: RunRef, seq: int, at: int, step: int | None, kind: str, actor: str, data: str, prev: bytes
) -> bytes:
    """Return the hash of an event: SHA-256 over 0x00 and its canonical JSON (RFC 9162, 8785).

    *data* is canonical JSON text already, so the object is put together in key order by hand.
    """
    body = (
        f'{{"actor":{quoted(actor)},"at":{at},"data":{data},"kind":{quoted(kind)},'
        f'"prev":"{prev.hex()}","run_id":{quoted(ref.run_id)},"seq":{seq},'
        f'"step":{"null" if step is None else step},"tenant":{quoted(ref.tenant)}}}'
    )
    return sha256(b"\x00" + body.encode())


def leaf_of(run_id: str, seq: int, head: bytes) -> bytes:
    """Return the leaf of a run whose chain ends, for now, with the hash *head* at *seq*."""
    return tree.leaf(canonical({"head": head.hex(), "run_id": run_id, "seq": seq}))


def commitment(salt: bytes, body: str) -> str:
    """Return the salted hash that binds *body* to the chain without telling anything of it."""
    return sha256(salt + body.encode()).hex()


_HASH_KEY = "SELECT hash_key FROM tenants WHERE tenant = ?"


def hash_key(tx: Tx, tenant: str) -> bytes:
    """Return the tenant's secret for payload hashes, made at its first use."""
    found = tx.row(_HASH_KEY, (tenant,))
    if found is None:
        tx.run(
            "INSERT INTO tenants (tenant, hash_key) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (tenant, os.urandom(32)),
        )
        found = tx.row(_HASH_KEY, (tenant,))
    if found is None:
        raise StoreUnavailable(f"the tenant {tenant} vanished from the store inside a transaction")
    with reading(f"the row of tenant {tenant}"):
        return bytes(found[0])
