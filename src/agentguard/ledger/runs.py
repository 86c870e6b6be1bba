"""Runs and their record: one hash chain a run, one unit of work a transaction."""

from __future__ import annotations

import contextlib
import json
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..canonical import canonical, dumps, plain_text, quoted, sha256
from ..errors import BudgetExceeded, ConfigurationError, RunHalted
from ..model import Limits, Usage, dollars
from . import switches
from .values import NEW_STEP, Draft, Opened, Opening, Pending, RunRef

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from ..protocols import Tx

_EMPTY_HASH = bytes(32)
_COUNTERS = (
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
_SELECT = f"SELECT {', '.join(_COUNTERS)} FROM runs WHERE tenant = ? AND run_id = ?"  # noqa: S608
_UPDATE = (
    f"UPDATE runs SET {', '.join(f'{name} = ?' for name in _COUNTERS)} "  # noqa: S608
    "WHERE tenant = ? AND run_id = ?"
)


class RunLog:
    """A run's row and the end of its chain, loaded once, written once per transaction."""

    __slots__ = (*_COUNTERS, "_tx", "flying", "ref")

    def __init__(self, tx: Tx, ref: RunRef) -> None:
        row = tx.row(_SELECT, (ref.tenant, ref.run_id))
        if row is None:
            raise ConfigurationError(f"run {ref.run_id!r} is not in this store")
        (self.status, self.part, self.started_at, self.part_started_at, self.updated_at,
         self.active_us, self.steps, self.last_step, self.model_calls, self.tool_calls, self.spent,
         self.held, self.input_tokens, self.output_tokens, self.cost_complete, self.head_seq,
         self.head_hash, self.finished_at, self.error) = row  # fmt: skip
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

    def add(self, draft: Draft) -> None:
        """Append one event to the chain, inside the transaction of the change it tells of."""
        seq, at = self.head_seq + 1, self._tx.now
        data = dict(draft.data)
        if draft.content is not None:
            data["content"] = self._keep(seq, draft.content)
        text = plain_text(data)
        actor = draft.actor or self.ref.actor
        self.head_hash = link(
            self.ref, seq, at, draft.step, draft.kind, actor, text, self.head_hash
        )
        self.head_seq = seq
        self._tx.run(
            "INSERT INTO events (tenant, run_id, seq, at, step, kind, actor, data, hash)"
            " VALUES (?,?,?,?,?,?,?,?,?)",
            (self.ref.tenant, self.ref.run_id, seq, at, draft.step, draft.kind, actor, text,
             self.head_hash),
        )  # fmt: skip

    def _keep(self, seq: int, content: Mapping[str, Any]) -> str:
        """Store *content* beside the chain and return its salted commitment."""
        salt, body = secrets.token_bytes(16), plain_text(content)
        self._tx.run(
            "INSERT INTO contents (tenant, run_id, seq, salt, body) VALUES (?,?,?,?,?)",
            (self.ref.tenant, self.ref.run_id, seq, salt, body),
        )
        return commitment(salt, body)

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
        """Put the head of this chain into its tenant's log, so that no run can vanish."""
        tenant, run_id = self.ref.tenant, self.ref.run_id
        row = self._tx.row("SELECT max(position) FROM leaves WHERE tenant = ?", (tenant,))
        position = 0 if row is None or row[0] is None else row[0] + 1
        body = canonical({"head": self.head_hash.hex(), "run_id": run_id, "seq": self.head_seq})
        self._tx.run(
            "INSERT INTO leaves (tenant, position, run_id, seq, hash) VALUES (?,?,?,?,?)",
            (tenant, position, run_id, self.head_seq, sha256(b"\x00" + body)),
        )

    def save(self) -> Usage:
        """Write the run's row and return its usage."""
        if self.ref.actor.startswith("agent:"):  # what people decide meanwhile is no activity
            self.updated_at = self._tx.now
        values = (
            self.status, self.part, self.started_at, self.part_started_at, self.updated_at,
            self.active_us, self.steps, self.last_step, self.model_calls, self.tool_calls,
            self.spent, self.held, self.input_tokens, self.output_tokens, self.cost_complete,
            self.head_seq, self.head_hash, self.finished_at, self.error, self.ref.tenant,
            self.ref.run_id,
        )  # fmt: skip
        self._tx.run(_UPDATE, values)
        return self.usage()


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


def commitment(salt: bytes, body: str) -> str:
    """Return the salted hash that binds *body* to the chain without telling anything of it."""
    return sha256(salt + body.encode()).hex()


def open_run(tx: Tx, opening: Opening) -> Opened:
    """Enter a run: begin it, or resume it with all that it has used and done."""
    ref = opening.ref
    row = tx.row(
        "SELECT workflow, limits, trace FROM runs WHERE tenant = ? AND run_id = ?",
        (ref.tenant, ref.run_id),
    )
    limits, trace = opening.limits, None
    if row is None:
        _insert_run(tx, opening)
        log = RunLog(tx, ref)
        log.add(Draft("run.started", _opening_data(opening, limits)))
        log.leaf()
    else:
        limits, trace = _merged(opening.limits, row[1]), row[2]
        log = _resume(tx, opening, row[0], limits)
    usage = log.save()
    return Opened(
        part=log.part,
        usage=usage,
        limits=limits,
        active_us=log.active_us,
        started_at=log.part_started_at,
        hash_key=hash_key(tx, ref.tenant),
        earlier_trace=trace,
    )


def _insert_run(tx: Tx, opening: Opening) -> None:
    tx.run(
        "INSERT INTO runs (tenant, run_id, workflow, status, part, agent, subject, limits,"
        " policy_version, started_at, part_started_at, updated_at, head_hash, trace)"
        " VALUES (?,?,?,'running',1,?,?,?,?,?,?,?,?,?)",
        (opening.ref.tenant, opening.ref.run_id, opening.workflow, opening.agent, opening.subject,
         limits_text(opening.limits), opening.policy_version, tx.now, tx.now, tx.now, _EMPTY_HASH,
         opening.trace),
    )  # fmt: skip


def _resume(tx: Tx, opening: Opening, workflow: str, limits: Limits) -> RunLog:
    ref = opening.ref
    if workflow != opening.workflow:
        raise ConfigurationError(
            f"run {ref.run_id!r} belongs to the workflow {workflow!r}, not to {opening.workflow!r}:"
            " use another run_id"
        )
    log = RunLog(tx, ref)
    stopped = log.stopped()
    if stopped is not None:
        raise stopped
    if log.status == "running" and opening.join:
        return log
    if log.status == "running":
        # The earlier part ended without saying so, or still runs beside us: what it was seen to
        # use of its time counts.
        log.active_us += log.updated_at - log.part_started_at
    log.part, log.status, log.part_started_at = log.part + 1, "running", tx.now
    log.finished_at, log.error = None, None
    tx.run(
        "UPDATE runs SET limits = ?, policy_version = ?, trace = ? WHERE tenant = ? AND run_id = ?",
        (limits_text(limits), opening.policy_version, opening.trace, ref.tenant, ref.run_id),
    )
    log.add(Draft("run.resumed", {**_opening_data(opening, limits), "part": log.part}))
    return log


def _opening_data(opening: Opening, limits: Limits) -> dict[str, Any]:
    return {**opening.data, "limits": json.loads(limits_text(limits))}


def _merged(asked: Limits, stored: str) -> Limits:
    """Return the run's limits: what this entry names replaces what an earlier one set."""
    kept = json.loads(stored)
    names = Limits.__dataclass_fields__
    chosen = {name: getattr(asked, name) for name in names}
    return Limits(**{n: v if v is not None else limit_of(kept, n) for n, v in chosen.items()})


def limit_of(kept: Mapping[str, Any], name: str) -> Any:
    """Return one limit as stored; seconds are kept as text, since the chain holds no floats."""
    value = kept.get(name)
    return float(value) if name == "max_seconds" and value is not None else value


def limits_text(limits: Limits) -> str:
    """Return limits as canonical JSON without floats and without what is not set."""
    found = {name: getattr(limits, name) for name in Limits.__dataclass_fields__}
    return dumps(
        {
            name: str(value) if isinstance(value, float) else value
            for name, value in found.items()
            if value is not None
        }
    )


def hash_key(tx: Tx, tenant: str) -> bytes:
    """Return the tenant's secret for payload hashes, made at its first use."""
    tx.run(
        "INSERT INTO tenants (tenant, hash_key) VALUES (?, ?) ON CONFLICT DO NOTHING",
        (tenant, secrets.token_bytes(32)),
    )
    rows = tx.rows("SELECT hash_key FROM tenants WHERE tenant = ?", (tenant,))
    return bytes(next(iter(rows))[0])


def flush(tx: Tx, ref: RunRef, pending: Pending) -> Usage:
    """Write events that waited for a commit."""
    log = RunLog(tx, ref)
    log.absorb(pending)
    return log.save()


def close_run(
    tx: Tx, ref: RunRef, status: str, error: str | None, pending: Pending
) -> tuple[str, Usage]:
    """Leave a run: succeeded, failed, or waiting while people have not decided; how it stands."""
    log = RunLog(tx, ref)
    log.absorb(pending)
    log.active_us += tx.now - log.part_started_at
    if log.status == "running":
        log.status = "waiting" if _waits(tx, ref) else status
        log.error = None if log.status == "waiting" else error
    log.finished_at = tx.now
    log.add(Draft("run.finished", {"status": log.status, "part": log.part}, content=_why(error)))
    log.leaf()
    return log.status, log.save()


def _why(error: str | None) -> dict[str, str] | None:
    return None if error is None else {"error": error}


def _waits(tx: Tx, ref: RunRef) -> bool:
    row = tx.row(
        "SELECT 1 FROM effects WHERE tenant = ? AND run_id = ? AND state = 'awaiting_approval'",
        (ref.tenant, ref.run_id),
    )
    return row is not None


def stops(tx: Tx, ref: RunRef, agent: str) -> dict[str, str]:
    """Return why plain reads may not start: by tool, or under no name for all of them."""
    everything = RunLog(tx, ref).stopped() or switches.closed(tx, ref.tenant, agent, "")
    found = switches.tools(tx)
    return found if everything is None else {"": everything.message}


def cancel_run(tx: Tx, tenant: str, run_id: str, by: str, reason: str) -> None:
    """Stop a run for good: nothing more starts in it, and it cannot be resumed."""
    log = RunLog(tx, RunRef(tenant, run_id, f"person:{by}"))
    log.status, log.error, log.finished_at = "cancelled", reason, tx.now
    log.add(Draft("run.finished", {"status": "cancelled", "part": log.part}, content=_why(reason)))
    log.leaf()
    log.save()
