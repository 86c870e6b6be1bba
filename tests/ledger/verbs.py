"""The ledger's verbs in short, over a real store file, and the table of what they may do."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from agentguard.ledger import approvals, effects, settling
from agentguard.ledger.rows import load_effect, lock_effect
from agentguard.ledger.lifecycle import close_run, open_run
from agentguard.ledger.values import (
    Answer,
    Ask,
    Intent,
    Interrupted,
    Opening,
    Pending,
    Reservation,
    RunRef,
    Settlement,
)
from agentguard.model import Approval, Effect, EffectState, Limits
from agentguard.protocols import Tx
from agentguard.stores.sqlite import SqliteStore
from agentguard.testing import FakeClock

TENANT = "acme"
COST = 7
DAY_US = 86_400_000_000
PAYLOADS = {"p": "q", "q": "p"}
"""Each payload and the other one."""

SITUATIONS = (
    "none", "asked", "approved", "rejected", "expired", "denied", "lapsed", "executing",
    "orphaned", "succeeded", "failed", "failed_approved", "failed_late", "failed_final", "in_doubt",
)  # fmt: skip
"""The states of the ledger, told apart by their approval and by whether their owner lives:

`expired` and `rejected` wait for the agent to hear of it, `lapsed` and `denied` were heard;
`orphaned` executes under a dead owner; `failed_approved` failed without effect under an approval
that still holds, `failed_late` under one whose time is over.
"""

BEGINS = ("begin", "begin_asking", "begin_deduped", "other", "other_asking")
SETTLES = {
    "returned": EffectState.SUCCEEDED,
    "no_effect": EffectState.FAILED_RETRYABLE,
    "for_good": EffectState.FAILED_FINAL,
    "unclear": EffectState.IN_DOUBT,
}
RULINGS = {"ruled_happened": "happened", "ruled_not": "not_happened", "ruled_failed": "failed"}
CUT_OFF = {"cut_off": True, "cut_off_before": False}
"""The caller was interrupted without knowing the end; whether the body had begun."""
VERBS = (*BEGINS, *SETTLES, "stale", *CUT_OFF, *RULINGS, "reconciled", "sweep", "approve", "reject",
         "wait")  # fmt: skip

_SAME = ("begin", "begin_asking", "begin_deduped")
_ENDS = {
    "returned": "succeeded", "no_effect": "failed", "for_good": "failed_final",
    "unclear": "in_doubt",
}  # fmt: skip
_CUT_OFF = {"cut_off": "in_doubt", "cut_off_before": "failed"}
_RULED = {
    "ruled_happened": "succeeded", "ruled_not": "failed", "ruled_failed": "failed_final",
    "reconciled": "failed",
}  # fmt: skip
_ANEW = {"other": "asked", "other_asking": "asked"}

LEGAL: dict[str, dict[str, str]] = {
    "none": {**dict.fromkeys(("begin", "begin_deduped", "other"), "executing"),
             "begin_asking": "asked", "other_asking": "asked"},
    "asked": {"approve": "approved", "reject": "rejected", "wait": "expired"},
    "approved": {**dict.fromkeys(_SAME, "executing"), "wait": "expired"},
    "rejected": {**dict.fromkeys(_SAME, "denied"), **_ANEW},
    "expired": {**dict.fromkeys(_SAME, "lapsed"), **_ANEW},
    "denied": _ANEW,
    "lapsed": {**dict.fromkeys(_SAME, "asked"), **_ANEW},
    "executing": {**_ENDS, **_CUT_OFF},
    "orphaned": {"begin": "in_doubt", "begin_asking": "in_doubt", "begin_deduped": "executing",
                 "sweep": "in_doubt", **_ENDS, **_CUT_OFF, **_RULED},
    "succeeded": {},
    "failed": dict.fromkeys(_SAME, "executing"),
    "failed_approved": {**dict.fromkeys(_SAME, "executing"), "wait": "failed_late"},
    "failed_late": dict.fromkeys(_SAME, "asked"),
    "failed_final": {},
    "in_doubt": {"begin_deduped": "executing", **_ENDS, **_RULED},
}  # fmt: skip
"""Situation and verb to the situation after it; what stands not here is refused."""

_PATHS = {
    "none": (), "asked": ("begin_asking",), "approved": ("begin_asking", "approve"),
    "rejected": ("begin_asking", "reject"), "expired": ("begin_asking", "wait"),
    "denied": ("begin_asking", "reject", "begin"), "lapsed": ("begin_asking", "wait", "begin"),
    "executing": ("begin",), "orphaned": ("begin", "die"), "succeeded": ("begin", "returned"),
    "failed": ("begin", "no_effect"),
    "failed_approved": ("begin_asking", "approve", "begin", "no_effect"),
    "failed_late": ("begin_asking", "approve", "begin", "no_effect", "wait"),
    "failed_final": ("begin", "for_good"), "in_doubt": ("begin", "unclear"),
}  # fmt: skip
"""How each situation is reached."""


def folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder in memory where there is one: the machine's syncs are no part of the table."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)


def ref(run: str = "r") -> RunRef:
    """Say who acts in *run*."""
    return RunRef(TENANT, run, "agent:bot")


class Ledger:
    """A store file, the workers that share it, and what they do with the effect `k`."""

    def __init__(self, path: Path, clock: FakeClock, runs: tuple[str, ...] = ("r",)) -> None:
        self.path, self.clock = path, clock
        self.workers = [self.open(), self.open()]
        for run in runs:
            self.enter(run)

    def open(self) -> SqliteStore:
        """Start one more worker, which has looked at the clock."""
        worker = SqliteStore(self.path, clock=self.clock)
        worker.read(lambda tx: tx.now)
        return worker

    def enter(self, run: str) -> None:
        """Begin *run*, or resume it."""
        opening = Opening(ref(run), "w", "bot", None, Limits(), "policy-1", None, {})
        self.workers[0].transact(open_run, opening)

    def close(self) -> None:
        """Let all workers end."""
        for worker in self.workers:
            worker.close()

    def leave(self, run: str) -> None:
        """End *run* as it does when nothing went wrong."""
        self.workers[0].transact(close_run, ref(run), "succeeded", None, Pending())

    # What the ledger holds now.

    def row(self, key: str = "k") -> Effect | None:
        """Return the effect's row."""
        found = self.workers[0].read(load_effect, TENANT, key)
        return None if found is None else found.public()

    def table(self, sql: str, *values: Any) -> list[Any]:
        """Return rows as they stand in the store."""
        return list(self.workers[0].read(lambda tx: tx.rows(sql, values)))

    def amend(self, key: str = "k", **changes: Any) -> None:
        """Write into the effect's row what no verb would, sealed as if one had."""

        def change(tx: Tx) -> None:
            row = lock_effect(tx, TENANT, key)
            assert row is not None
            for name, value in changes.items():
                setattr(row, name, value)
            row.update(tx)

        self.workers[0].transact(change)

    def everything(self) -> list[list[Any]]:
        """Return all that a refused verb must leave as it is."""
        return [
            self.table("SELECT * FROM effects ORDER BY key"),
            self.table("SELECT * FROM approvals ORDER BY approval_id"),
            self.table("SELECT * FROM votes ORDER BY approval_id"),
            self.table("SELECT * FROM budgets ORDER BY name, span"),
            self.table("SELECT run_id, held, spent, tool_calls FROM runs ORDER BY run_id"),
        ]

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
        return self.workers[worker].read(approvals.load, TENANT, name or "")

    # The verbs.

    def reach(self, situation: str) -> None:
        """Bring the effect into *situation*."""
        for verb in _PATHS[situation]:
            self.do(verb)

    def do(self, verb: str, key: str = "k", run: str = "r", worker: int = 0) -> Any:
        """Apply one of `VERBS` and return the ledger's answer."""
        if verb in BEGINS:
            return self.begin(verb, key, run, worker)
        if verb in (*SETTLES, "stale", *CUT_OFF):
            end = self.cut_off if verb in CUT_OFF else self.settle
            return end(verb, key, worker)
        if verb in (*RULINGS, "reconciled"):
            return self.rule(verb, key, worker)
        if verb in ("approve", "reject"):
            return self.decide(verb, key, worker)
        if verb == "wait":
            self.clock.advance(hours=25)
            return [each.transact(lambda tx: tx.now) for each in self.workers]
        return self.die(worker) if verb == "die" else self.workers[worker].transact(settling.sweep)

    def begin(self, verb: str, key: str, run: str, worker: int) -> Answer:
        """Ask to start the effect's body."""
        row = self.row(key)
        payload = row.payload_hash if row else "p"
        asks = Ask("always") if verb.endswith("asking") else None
        other = verb.startswith("other")
        intent = Intent(
            run=ref(run), key=key, scope="tenant", tool="pay", effect="write",
            contract_version="1", policy_version="policy-1",
            payload_hash=PAYLOADS[payload] if other else payload, claim_id="c", rule="",
            arguments={"to": key}, ask=asks, cost=COST,
            reservations=(Reservation("tool:pay", f"run:{run}", "pay", None, None, COST),),
            dedupe_us=DAY_US if verb == "begin_deduped" else None, agent="bot",
        )  # fmt: skip
        return self.workers[worker].transact(effects.begin, intent)[0]

    def settle(self, verb: str, key: str, worker: int) -> bool:
        """Write how the last start ended, or how one before it did."""
        row = self.row(key)
        fence = (row.fence if row else 0) - (verb == "stale")
        state = SETTLES.get(verb, EffectState.SUCCEEDED)
        end = Settlement(
            ref(self.run_of(key)), key, fence, 1, state, {},
            doubt_reason="unclear" if state is EffectState.IN_DOUBT else None,
        )  # fmt: skip
        return self.workers[worker].transact(settling.settle, end).written

    def cut_off(self, verb: str, key: str, worker: int) -> Any:
        """Let go of the last start, as a caller does that is interrupted."""
        lost = Interrupted(ref(self.run_of(key)), key, "c", None, CUT_OFF[verb], may_act=False)
        return self.workers[worker].transact(settling.abandon, lost)

    def run_of(self, key: str) -> str:
        """Return the run that started the effect last, or that asked."""
        last = self.table(
            "SELECT run_id FROM events WHERE kind = 'step.started' AND data ->> 'key' = ?"
            " ORDER BY data ->> 'fence' DESC LIMIT 1", key,
        )  # fmt: skip
        row = self.row(key)
        return str(last[0][0]) if last else (row.run_id if row else "r")

    def rule(self, verb: str, key: str, worker: int) -> Any:
        """Rule on a doubt, as a person or as the tool's hook."""
        ruling, by = RULINGS.get(verb, "not_happened"), "dana"
        if verb == "reconciled":
            by = "reconcile"
        return self.workers[worker].transact(
            settling.resolve, TENANT, key, ruling, by, "I looked it up"
        )

    def decide(self, decision: str, key: str, worker: int) -> Any:
        """Decide on what waits, as a person."""
        row = self.row(key)
        name = (row.approval_id if row else None) or "ap_none"
        ruling = approvals.Ruling(TENANT, name, decision, "dana", "because")
        return self.workers[worker].transact(approvals.decide, ruling)

    def die(self, worker: int) -> None:
        """Let a worker end like a killed process: its lock is free, its rows stand as they are."""
        self.workers[worker]._owner.drop()
        self.workers[worker].close()
        self.workers[worker] = self.open()
