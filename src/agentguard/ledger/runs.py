"""Runs and their record: one hash chain a run, one unit of work a transaction."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ..canonical import canonical, plain_text, quoted, seal, sha256
from ..errors import BudgetExceeded, ConfigurationError, RunHalted, StoreUnavailable
from ..model import Limits, Usage, dollars
from ..protocols import Asked
from . import tree
from .values import NEW_STEP, Draft, Pending, RunRef

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

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
)
GIVEN = ("workflow", "agent", "subject", "limits", "policy_version", "trace")
"""With these a run is entered."""
SEALED = (*COUNTERS, *GIVEN)
SELECT_SEALED = f"SELECT tenant, run_id, {', '.join(SEALED)}, seal FROM runs"  # noqa: S608
_SELECT = f"{SELECT_SEALED} WHERE tenant = ? AND run_id = ?"
_UPDATE = (
    f"UPDATE runs SET {', '.join(f'{name} = ?' for name in COUNTERS)}, seal = ?"  # noqa: S608
    " WHERE tenant = ? AND run_id = ?"
)


def asked(ref: RunRef) -> Asked:
    """Return the question that a `RunLog` begins with."""
    return Asked("lock", _SELECT, (ref.tenant, ref.run_id), early=True)


class RunLog:
    """A run's row and the end of its chain, locked and loaded once, written once per transaction.

    Raises:
        ConfigurationError: there is no such run.
        StoreUnavailable: its row is not as it was written.
    """

    __slots__ = (*SEALED, "_tx", "flying", "ref")

    def __init__(self, tx: Tx, ref: RunRef) -> None:
        row = tx.lock(*asked(ref)[1:3])
        if row is None:
            raise ConfigurationError(f"run {ref.run_id!r} is not in this store")
        _, _, *values, sealed = row
        check_seal(ref, values, sealed)
        (self.status, self.part, self.started_at, self.part_started_at, self.updated_at,
         self.active_us, self.steps, self.last_step, self.model_calls, self.tool_calls, self.spent,
         self.held, self.input_tokens, self.output_tokens, self.cost_complete, self.head_seq,
         self.head_hash, self.finished_at, self.error, self.workflow, self.agent, self.subject,
         self.limits, self.policy_version, self.trace) = values  # fmt: skip
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
    workflow: str
    agent: str
    subject: str | None
    limits: str
    policy_version: str
    trace: str | None

    def add(self, draft: Draft) -> None:
        """Append one event to the chain, inside the transaction of the change it tells of."""
        seq, at = self.head_seq + 1, self._tx.now
        data, salt, body = draft.data, None, None
        if draft.content is not None:
            salt, body = secrets.token_bytes(16), plain_text(draft.content)
            data = {**data, "content": commitment(salt, body)}
        text = plain_text(data)
        actor = draft.actor or self.ref.actor
        self.head_hash = link(
            self.ref, seq, at, draft.step, draft.kind, actor, text, self.head_hash
        )
        self.head_seq = seq
        self._tx.run(
            "INSERT INTO events (tenant, run_id, seq, at, step, kind, actor, data, hash, salt, body)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (self.ref.tenant, self.ref.run_id, seq, at, draft.step, draft.kind, actor, text,
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
        for draft in pending.drafts:
            # The draft stays as it is: if this commit fails, the next one numbers it again.
            self.add(replace(draft, step=self.next_step()) if draft.step == NEW_STEP else draft)
        self.tool_calls += pending.tool_calls

    def stopped(self) -> RunHalted | None:
        """Return the refusal, if an operator stopped this run."""
        if self.status in ("halted", "cancelled"):
            return RunHalted(f"run {self.ref.run_id} is {self.status}: {self.error or 'no reason'}")
        return None

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
            self.input_tokens, self.output_tokens,
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
        tenant, run_id, counters = self.ref.tenant, self.ref.run_id, _counters(self)
        sealed = seal(tenant, run_id, *counters, *_given(self))
        self._tx.run(_UPDATE, (*counters, sealed, tenant, run_id))
        return self.usage()


_counters, _given = attrgetter(*COUNTERS), attrgetter(*GIVEN)


def check_seal(ref: RunRef, values: Sequence[Any], sealed: bytes | None) -> None:
    """Refuse a run's row that is not as it was written.

    Raises:
        StoreUnavailable: it is damaged.
    """
    if sealed is None or seal(ref.tenant, ref.run_id, *values) != bytes(sealed):
        raise StoreUnavailable(
            f"the row of run {ref.run_id} is not as it was written: the store is damaged, and"
            " nothing was started; see agentguard doctor"
        )


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
            (tenant, secrets.token_bytes(32)),
        )
        found = tx.row(_HASH_KEY, (tenant,))
    if found is None:
        raise StoreUnavailable(f"the tenant {tenant} vanished from the store inside a transaction")
    return bytes(found[0])
