"""The ledger's verbs in short, over the openings of any store: what the contract's tests do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...ledger import approvals, decisions, effects, settling
from ...ledger.lifecycle import open_run
from ...ledger.rows import COLUMNS, load_effect
from ...ledger.values import (
    Answer,
    Ask,
    Intent,
    Interrupted,
    Opened,
    Opening,
    Reservation,
    RunRef,
    Settlement,
)
from ...model import Approval, Effect, EffectState, Limits
from .table import BEGINS, CUT_OFF, PATHS, PAYLOADS, RULINGS, SETTLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...protocols import Store
    from ..clock import FakeClock

COST = 7
DAY_US = 86_400_000_000


def intent(
    run: RunRef, key: str = "k", *, payload: str = "p", asking: bool = False, **more: Any
) -> Intent:
    """Return the wish to start a write that costs something."""
    chosen: dict[str, Any] = {
        "scope": "tenant", "tool": "pay", "effect": "write", "contract_version": "1",
        "policy_version": "policy-1", "claim_id": "c", "rule": "", "arguments": {"to": key},
        "ask": Ask("always") if asking else None, "cost": COST, "agent": "bot",
        "reservations": (Reservation("tool:pay", f"run:{run.run_id}", "pay", None, None, COST),),
    }  # fmt: skip
    return Intent(run=run, key=key, payload_hash=payload, **{**chosen, **more})


def enter(store: Store, run: RunRef, limits: Limits | None = None) -> Opened:
    """Begin *run*, or resume it."""
    opening = Opening(run, "w", "bot", None, limits or Limits(), "policy-1", None, {})
    return store.transact(open_run, opening)


class Ledger:
    """One tenant's effects, the workers that share them, and what they do with the effect `k`.

    Args:
        workers: openings of one store, or one of them several times.
        clock: their time.
        elsewhere: runs a function on an opening in another process that is killed then.
    """

    def __init__(
        self, workers: Sequence[Store], clock: FakeClock, tenant: str = "acme",
        runs: Sequence[str] = ("r",),
        elsewhere: Callable[[Callable[[Store], object]], None] | None = None,
    ) -> None:  # fmt: skip
        self.workers, self.clock, self.tenant = list(workers), clock, tenant
        self._elsewhere = elsewhere
        for run in runs:
            enter(self.workers[0], self.ref(run))

    def ref(self, run: str = "r") -> RunRef:
        """Say who acts in *run*."""
        return RunRef(self.tenant, run, "agent:bot")

    # What the ledger holds now.

    def row(self, key: str = "k") -> Effect | None:
        """Return the effect's row."""
        found = self.workers[0].read(load_effect, self.tenant, key)
        return None if found is None else found.public()

    def table(self, sql: str, *values: Any) -> list[Any]:
        """Return rows as they stand in the store."""
        return [tuple(row) for row in self.workers[0].read(lambda tx: tx.rows(sql, values))]

    def events(self, run: str = "r") -> list[tuple[str, dict[str, Any]]]:
        """Return kind and data of a run's events, in order."""
        sql = "SELECT kind, data FROM events WHERE tenant = ? AND run_id = ? ORDER BY seq"
        return [(kind, json.loads(data)) for kind, data in self.table(sql, self.tenant, run)]

    def everything(self) -> list[list[Any]]:
        """Return all that a refused verb must leave as it is; it may leave evidence."""
        kept = ", ".join(name for name in COLUMNS if name != "late")
        selects = (
            f"SELECT {kept} FROM effects WHERE tenant = ?",  # noqa: S608 - fixed names
            "SELECT approval_id, status, generation, decided_at, used_at FROM approvals WHERE tenant = ?",
            "SELECT approval_id, person, decision, generation FROM votes WHERE tenant = ?",
            "SELECT name, span, calls, spent, held FROM budgets WHERE tenant = ?",
            "SELECT run_id, held, spent, tool_calls FROM runs WHERE tenant = ?",
        )
        return [sorted(self.table(sql, self.tenant), key=repr) for sql in selects]

    def situation(self, key: str = "k", worker: int = 0) -> str:
        """Return which of `SITUATIONS` the effect is in, as *worker* sees it."""
        row = self.row(key)
        if row is None:
            return "none"
        approval = self.approval(row, worker)
        if row.state is EffectState.AWAITING_APPROVAL:
            status = approval.status if approval else ""
            return {"pending": "asked"}.get(status, status)
        if row.state is EffectState.DENIED:
            return "denied" if approval and approval.status == "rejected" else "lapsed"
        if row.state is EffectState.EXECUTING and self._is_dead(row):
            return "orphaned"
        if row.state is EffectState.FAILED_RETRYABLE:
            return self._failed(approval, worker)
        return str(row.state)

    def _failed(self, approval: Approval | None, worker: int) -> str:
        if approval is None:
            return "failed"
        now = self.workers[worker].read(lambda tx: tx.now)
        late = now >= int(approval.expires_at.timestamp() * 1_000_000)
        return "failed_late" if late else "failed_approved"

    def _is_dead(self, row: Effect) -> bool:
        return any(w.read(lambda tx: tx.is_dead(row.owner or "")) for w in self.workers)

    def approval(self, row: Effect | None, worker: int = 0) -> Approval | None:
        """Return the approval that the effect waits for or was started with."""
        name = row.approval_id if row else None
        return self.workers[worker].read(approvals.load, self.tenant, name or "")

    # The verbs.

    def reach(self, situation: str) -> None:
        """Bring the effect into *situation*."""
        for verb in PATHS[situation]:
            self.do(verb)

    def do(self, verb: str, key: str = "k", run: str = "r", worker: int = 0) -> Any:
        """Apply one of `VERBS` and return the ledger's answer."""
        if verb in BEGINS:
            return self.begin(verb, key, run, worker)
        if verb in _DONE:
            return _DONE[verb](self, verb, key, worker)
        if verb == "wait":
            self.clock.advance(hours=25)
            return [each.transact(lambda tx: tx.now) for each in self.workers]
        return self.begin_and_die(key, run) if verb == "begin_and_die" else self.sweep(worker)

    def intent(self, verb: str, key: str, run: str) -> Intent:
        """Return what one of `BEGINS` asks for."""
        row = self.row(key)
        payload = row.payload_hash if row else "p"
        return intent(
            self.ref(run), key, payload=PAYLOADS[payload] if verb.startswith("other") else payload,
            asking=verb.endswith("asking"), dedupe_us=DAY_US if verb == "begin_deduped" else None,
        )  # fmt: skip

    def begin(self, verb: str, key: str, run: str, worker: int) -> Answer:
        """Ask to start the effect's body."""
        return self.workers[worker].transact(effects.begin, self.intent(verb, key, run))[0]

    def begin_and_die(self, key: str, run: str) -> None:
        """Let another process start the body and be killed."""
        assert self._elsewhere is not None, "no other process can open this store"
        wish = self.intent("begin", key, run)
        self._elsewhere(lambda store: store.transact(effects.begin, wish))

    def settle(self, verb: str, key: str, worker: int) -> bool:
        """Write how the last start ended, or how one before it did."""
        row = self.row(key)
        fence = (row.fence if row else 0) - (verb == "stale")
        return self.workers[worker].transact(settling.settle, self.end(verb, key, fence)).written

    def end(self, verb: str, key: str = "k", fence: int = 1, **data: Any) -> Settlement:
        """Return how a start ended."""
        state = SETTLES.get(verb, EffectState.SUCCEEDED)
        reason = "unclear" if state is EffectState.IN_DOUBT else None
        return Settlement(
            self.ref(self.run_of(key)), key, fence, 1, state, data, doubt_reason=reason
        )

    def cut_off(self, verb: str, key: str, worker: int) -> Any:
        """Let go of the last start, as a caller does that is interrupted."""
        lost = Interrupted(self.ref(self.run_of(key)), key, "c", None, CUT_OFF[verb], may_act=False)
        return self.workers[worker].transact(settling.abandon, lost)

    def run_of(self, key: str) -> str:
        """Return the run that started the effect last, or that asked."""
        sql = "SELECT run_id, data FROM events WHERE tenant = ? AND kind = 'step.started'"
        starts = [(run, json.loads(data)) for run, data in self.table(sql, self.tenant)]
        mine = [(data["fence"], run) for run, data in starts if data["key"] == key]
        row = self.row(key)
        return str(max(mine)[1]) if mine else (row.run_id if row else "r")

    def rule(self, verb: str, key: str, worker: int) -> Any:
        """Rule on a doubt, as a person or as the tool's hook."""
        ruling = RULINGS.get(verb, "not_happened")
        by = "reconcile" if verb == "reconciled" else "dana"
        return self.workers[worker].transact(
            settling.resolve, self.tenant, key, ruling, by, "I looked it up"
        )

    def decide(
        self, decision: str, key: str = "k", worker: int = 0, by: str = "dana", **more: Any
    ) -> Any:
        """Decide on what waits, as a person."""
        row = self.row(key)
        name = (row.approval_id if row else None) or "ap_none"
        ruling = decisions.Ruling(self.tenant, name, decision, by, "because", **more)
        return self.workers[worker].transact(decisions.decide, ruling)

    def sweep(self, worker: int = 0) -> int:
        """Look for effects of dead owners."""
        return self.workers[worker].transact(settling.sweep)


_DONE: Mapping[str, Callable[[Ledger, str, str, int], Any]] = {
    **dict.fromkeys((*SETTLES, "stale"), Ledger.settle),
    **dict.fromkeys(CUT_OFF, Ledger.cut_off),
    **dict.fromkeys((*RULINGS, "reconciled"), Ledger.rule),
    **dict.fromkeys(("approve", "reject"), Ledger.decide),
}
