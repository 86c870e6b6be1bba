"""A call that needs the start transaction: a write, or a read with rules or a budget."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from . import _decide
from ._apart import keep_trying
from ._attempt import End, attempt
from ._backoff import Backoff
from ._claim import Claim
from ._doubts import Doubts
from ._persist import recorded, settlement_of, unrecorded
from ._proposals import proposal_of, put_down
from ._runaway import next_wait, note_replay
from .errors import (
    ApprovalRequired,
    EffectInProgress,
    StoreUnavailable,
    VerificationFailed,
)
from .ledger import approvals, effects, settling
from .ledger.compensating import REFUTED
from .ledger.rows import is_same_call, load_effect
from .ledger.values import (
    NEW_STEP,
    Busy,
    Doubt,
    Draft,
    Drafted,
    Edited,
    Lost,
    Pending,
    Refused,
    Replay,
    Settlement,
    Started,
    Unproven,
    Waiting,
)
from .model import EffectState, moment
from .telemetry import told

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._runtime import Runtime
    from .ledger.rows import EffectRow
    from .ledger.values import Answer, Intent
    from .model import Approval, Effect
    from .run import Run
    from .tool import Call

_PATIENCE = 30.0
"""Seconds that a second caller waits for the first, when the tool names no timeout."""
_SAME_MOMENT_US = 1000
"""Times are kept in microseconds; floats of today's seconds do not tell a single one apart."""


class DurableCall:
    """Drives one call from its decision to its settled end."""

    def __init__(self, runtime: Runtime, run: Run, call: Call, body: Callable[[], Any]) -> None:
        self.runtime, self.run_, self.call, self.body = runtime, run, call, body
        self.tool, self.store = call.tool, run.around.store
        self.backoff = Backoff(self.tool.retry)
        self.patience = time.monotonic() + (self.tool.timeout or _PATIENCE)
        self.polls, self.asked_at, self.first = 0, 0.0, False
        self.row: Any = None
        self.claim = Claim(run, call)
        self.doubts = Doubts(runtime, run, call)

    async def run(self) -> tuple[Any, str]:
        """Return the result and its outcome, or raise what the caller is told."""
        try:
            return await self._run()
        except BaseException:
            self.claim.abandon()
            raise
        finally:
            self.claim.count_owed()

    async def _run(self) -> tuple[Any, str]:
        self.first = self.run_.meter.visit(self.call.idempotency_key)
        known = await self._known()
        if known and known.state in effects.FINAL and known.payload_hash == self.call.payload_hash:
            return await self._replayed(known.public())
        intent = _decide.intent_of(self.run_, self.call)
        intent.first, self.call.rule = self.first, intent.rule
        while True:
            answer = await self._begin(intent)
            if isinstance(answer, Replay):
                return await self._replayed(answer.effect)
            if isinstance(answer, Started):
                self.claim.owed = None
                end = await self._execute(answer)
                if end.state is EffectState.SUCCEEDED and intent.cost:
                    told(self.call).cost = intent.cost
                if not await self._again(end):
                    if end.result_state == REFUTED and isinstance(end.error, VerificationFailed):
                        end.error = await self._undo(end.error)
                    return self._result(end)
            else:
                intent = await self._answered(answer, intent)

    async def _known(self) -> EffectRow | None:
        """Look for the key where it may well be on record; a new one is looked up by its start."""
        run, key = self.run_, self.call.idempotency_key
        if self.first and run.part == 1 and run.limits.max_repeats is None:
            return None
        known: EffectRow | None = await self.runtime.look(
            self.store, load_effect, run.principal.tenant, key
        )
        if known is None or not self._continues(known):
            run.meter.count_repeat(self.tool.name, self.call.payload_hash)
        return known

    def _continues(self, known: EffectRow | Effect) -> bool:
        call_id = _decide.call_id(self.call)
        return is_same_call(known, self.run_.id, call_id, first=self.first)

    async def _begin(self, intent: Intent) -> Answer:
        meter = self.run_.meter
        intent.pending = taken = meter.drain(1, 1)
        intent.attempt = self.call.attempt
        self.claim.make(intent.claim_id)
        self.asked_at = self.store.awake()
        try:
            answer, usage = await self.run_.commit(self.runtime, taken, effects.begin, intent)
        except BaseException as error:
            meter.expect(-1, -1)
            if isinstance(error, StoreUnavailable):
                self.claim.leave() if error.uncertain else self.claim.drop()
            raise
        if not isinstance(answer, Started):
            self.claim.drop()
        meter.synced(usage, taken, steps=1, tools=1)
        step = getattr(answer, "step", None)
        if step is not None:
            self.call.step = intent.step = step
        return answer

    async def _answered(self, answer: Answer, intent: Intent) -> Intent:
        """Deal with whatever keeps the body from starting; return to begin again."""
        self.runtime.check_cancelled()
        if isinstance(answer, Refused):
            self.call.decision = "deny"
            raise answer.error
        if isinstance(answer, Waiting):
            self._wait_for_people(answer)
        elif isinstance(answer, Drafted):
            self._note_asked(answer.approval, answer.approval.stage or "draft")
            raise put_down(self.call, answer.approval)
        elif isinstance(answer, Unproven):
            intent.proposal = await proposal_of(self.runtime, self.run_, self.call)
        elif isinstance(answer, Edited):
            return self._edited(answer, intent)
        elif isinstance(answer, Busy):
            await self._wait_for_owner(answer)
        elif isinstance(answer, Lost):
            await self.doubts.lose(answer.effect, intent.watch)
        elif isinstance(answer, Doubt):
            await self.doubts.reconcile(answer)
        return intent

    def _wait_for_people(self, answer: Waiting) -> None:
        host, approval = self.run_.host, answer.approval
        self.call.decision, self.call.approval_id = "require_approval", approval.id
        self._note_asked(approval, "approval")
        if host.can_pause():
            host.pause(approval)
            return
        raise ApprovalRequired(
            f"{self.tool.name} waits for a person ({approval.rule}): agentguard approvals show"
            f" {approval.id}",
            approval=approval,
        )

    def _note_asked(self, approval: Approval, why: str) -> None:
        """Whoever comes again while people have not decided does not turn to them once more."""
        learned = told(self.call)
        learned.approval = approval
        if approval.created_at.timestamp() * 1_000_000 >= self.call.at - _SAME_MOMENT_US:
            learned.escalated = why

    def _edited(self, answer: Edited, intent: Intent) -> Intent:
        """Take over the approved arguments; the requested payload stays what the key is bound to."""
        call, edits = self.call, dict(answer.approval.edits or {})
        call.arguments = self.tool.arguments.check({**call.arguments, **edits})
        call.plain = {**call.plain, **edits}
        changed = _decide.intent_of(self.run_, call)
        changed.step, changed.first, changed.edits = intent.step, intent.first, edits
        changed.proposal = intent.proposal
        changed.values = intent.values  # what people change in a call keeps its place in the plan
        return changed

    async def _wait_for_owner(self, busy: Busy) -> None:
        self.polls += 1
        if time.monotonic() > self.patience or self._waits_for_itself():
            raise EffectInProgress(
                f"{self.tool.name}: the same effect is being executed (run {busy.effect.run_id},"
                f" step {busy.effect.step}); it was not started again"
            )
        await self.runtime.sleep(min(0.001 * 2**self.polls, 0.1))

    def _waits_for_itself(self) -> bool:
        """A body that calls its own key would wait for its own end."""
        outer = self.call.outer
        while outer is not None and outer.idempotency_key != self.call.idempotency_key:
            outer = outer.outer
        return outer is not None

    async def _execute(self, started: Started) -> End:
        """Run the body under its fence and settle its end."""
        call, timeout = self.call, self.tool.timeout
        call.fence, call.attempt, call.repeat = started.fence, started.attempt, started.repeat
        self.row = started.row
        call.first_started_at = moment(started.first_started_at)
        if started.approval is not None:
            call.approval_id, call.edits = started.approval.id, started.edits
            learned = told(call)
            learned.approval = started.approval
            learned.granted |= started.fence == 1
        if timeout:
            call.deadline = moment(self.store.clock.now() + int(timeout * 1_000_000))
        began = time.monotonic_ns()
        try:
            self.runtime.check_cancelled()
            self._check_may_begin()
        except BaseException as error:  # noqa: BLE001 - cancelled after the start, before the body
            end = self.claim.not_begun(error)
        else:
            self.claim.began = True
            end = await attempt(self.runtime, self.run_, call, self.body)
        return await self._settle(end, (time.monotonic_ns() - began) // 1000)

    def _check_may_begin(self) -> None:
        """A process that was stopped after its start may have been taken for lost meanwhile."""
        if not self.store.may_begin(self.asked_at):
            raise StoreUnavailable(
                f"{self.tool.name} was not begun: this process was silent for longer than the store"
                " waits for an owner; make the call again"
            )

    async def _settle(self, end: End, duration_us: int) -> End:
        if end.verdicts:
            told(self.call).verdicts.extend(end.verdicts)
        self.claim.end = settlement = self.settlement(end, duration_us)
        last = end.state is not EffectState.FAILED_RETRYABLE or not end.again
        self.claim.owe(settlement, retries=not last and self.backoff.has_next(end.wait))
        try:
            settled = await self.run_.commit(
                self.runtime, settlement.pending, settling.settle, settlement
            )
        except StoreUnavailable as error:
            return self._unrecorded(end, settlement, error)
        self.claim.drop()
        self.run_.meter.synced(settled.usage, settlement.pending)
        if end.state is EffectState.SUCCEEDED:
            self.run_.meter.progressed()
            if not settled.written:
                end.error = self.doubts.error("somebody ruled on it before it ended")
        elif end.state is EffectState.IN_DOUBT and isinstance(end.error, Exception):
            await self.doubts.look_at_once(end)
        self.runtime.check_cancelled()
        return end

    def _unrecorded(self, end: End, settlement: Settlement, error: StoreUnavailable) -> End:
        """The body has ended and that cannot be written: it is in doubt until it is."""
        settlement.pending = Pending()  # the run keeps those events for its next commit
        self.claim.drop()
        keep_trying(self.store, settling.settle, settlement)
        end.error = unrecorded(self.call, end, error)
        end.state = EffectState.IN_DOUBT
        return end

    def settlement(self, end: End, duration_us: int) -> Settlement:
        """Return what is to be written of an end under the fence of its start."""
        return settlement_of(self.run_, self.call, self.row, end, duration_us)

    async def _again(self, end: End) -> bool:
        """Return whether the body is to be started once more, after waiting as long as it takes."""
        wait = await next_wait(self.runtime, self.run_, self.call, self.backoff, end)
        if wait is None:
            return False
        self.run_.meter.note(Draft("attempt.failed", {
            "key": self.call.idempotency_key, "attempt": self.call.attempt,
            "error": type(end.error).__name__, "wait_ms": int(wait * 1000),
        }, self.call.step))  # fmt: skip
        await self.runtime.sleep(wait)
        self.call.attempt += 1
        return True

    def _result(self, end: End) -> tuple[Any, str]:
        if end.error is not None:
            raise end.error
        return end.value, "ok" if end.state is EffectState.SUCCEEDED else "error"

    async def _undo(self, failed: VerificationFailed) -> VerificationFailed:
        """Undo what happened and was not confirmed; the error tells what became of that."""
        undo, run = self.tool.compensation, self.run_
        row: EffectRow | None = await self.runtime.look(
            self.store, load_effect, run.principal.tenant, self.call.idempotency_key
        )
        if row is None or row.result_state != REFUTED or undo is None or not undo.on_verdict:
            return failed
        told: VerificationFailed = await undo.after_verdict(run, row.public(), failed)
        return told

    async def _replayed(self, effect: Effect) -> tuple[Any, str]:
        self._note_replay(effect)
        if effect.result_state == REFUTED:
            why = (effect.error or {}).get("message", "its outcome was not confirmed")
            raise await self._undo(VerificationFailed(why))
        return recorded(self.tool, effect), "duplicate_noop"

    def _note_replay(self, effect: Effect) -> None:
        """Tell of a recorded end given back; nothing runs, nobody is asked, nothing is spent."""
        step = effect.step if self._continues(effect) else NEW_STEP
        if step == NEW_STEP:
            self.run_.meter.take()
        data = {"key": effect.id, "tool": effect.tool, "first_run": effect.run_id,
                "first_step": effect.step, "outcome": effect.state.value,
                "call_id": _decide.call_id(self.call)}  # fmt: skip
        data |= self.run_.plans.replayed(effect, self.call.arguments)
        self.run_.meter.note(Draft("effect.replayed", data, step), tool_call=step == NEW_STEP)
        note_replay(self.call, effect)
        self.call.step, self.call.fence = effect.step, effect.fence
        self.call.replayed, self.call.approval_id = True, effect.approval_id
        if effect.approval_id is not None:
            approval = self.store.read(approvals.load, effect.tenant, effect.approval_id)
            self.call.edits = approval.edits if approval else None
