"""What operators do: decide on waiting calls, rule on doubts, read and stop runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from .canonical import jsonable
from .codec import encode
from .errors import DecisionRefused, GuardError
from .executions import Executed
from .ledger import decisions, drafts, endings, lifecycle, queries, settling
from .ledger.approvals import is_person
from .ledger.values import RunRef
from .model import EffectState

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping, Sequence

    from .ledger.values import Watch
    from .model import Approval, Effect, Ending, Event, RunInfo
    from .protocols import Store

T = TypeVar("T")


class Approvals:
    """Calls that wait for people: `guard.approvals`."""

    def __init__(self, store: Store, guard: Any) -> None:
        self._store, self._guard = store, guard

    def list(
        self, status: str | None = None, *, tenant: str | None = None, limit: int = 100
    ) -> list[Approval]:
        """Return approvals, oldest first; *status* is pending, approved, rejected, expired, used."""
        return self._store.read(queries.waiting, tenant, status, limit)

    def show(self, approval_id: str, *, tenant: str | None = None) -> Approval:
        """Return one approval; a unique beginning of its id is enough.

        Raises:
            DecisionRefused: there is none, or more than one.
        """
        found = self._store.read(queries.approval, tenant, approval_id)
        return _only(found, "approval", approval_id)

    def decide(
        self, approval_id: str, decision: str, *, by: str, reason: str = "",
        roles: Sequence[str] = (), edits: Mapping[str, Any] | None = None,
        generation: int | None = None, tenant: str | None = None,
    ) -> Approval:  # fmt: skip
        """Take one person's decision.

        Args:
            approval_id: the approval, or a unique beginning of its id.
            decision: `approve`, `reject` or `edit`.
            by: the person; neither the requester, nor who it is done for, nor an editor.
            reason: needed to reject; the agent is told.
            roles: the roles the person holds, as the caller has verified them.
            edits: for `edit`: arguments and their new values; somebody else then approves.
            generation: refuse if the call was edited since this generation.
            tenant: look only in this tenant.

        Raises:
            DecisionRefused: it is decided already, unknown, or cannot be edited so.
            PermissionDenied: this person may not decide.
            ApprovalExpired: the time is over.
        """
        approval = self.show(approval_id, tenant=tenant)
        if decision == "edit" and approval.input_schema is not None:
            _check_edits(approval, edits or {})
        ruling = decisions.Ruling(
            approval.tenant, approval.id, decision, by, reason,
            tuple([roles] if isinstance(roles, str) else roles), edits, generation,
        )  # fmt: skip
        return _raised(self._store.transact(decisions.decide, ruling))

    def proposal(self, approval_id: str, *, tenant: str | None = None) -> Mapping[str, Any] | None:
        """Return what a proposal shows besides the call: `evidence` and `diff`; None if nothing.

        Raises:
            DecisionRefused: there is no such approval.
        """
        return self._store.read(drafts.proposal, self.show(approval_id, tenant=tenant))

    def execute(
        self, approval_id: str, *, by: str, tools: Iterable[Any], tenant: str | None = None
    ) -> Any:
        """Execute an approved draft: exactly the call that was written down, once, in its run.

        Args:
            approval_id: the draft's approval, or a unique beginning of its id.
            by: the person who executes it; not who asked for it.
            tools: decorated functions, the tool's own among them.
            tenant: look only in this tenant.

        Returns:
            The result; the recorded one if it was executed already.

        Raises:
            DecisionRefused: it is not approved, no draft, or its record does not hold the call.
            PermissionDenied: this person may not execute it.
            EffectInDoubt: it was executed, and nobody knows how that ended.
        """
        approval = self.show(approval_id, tenant=tenant)
        return Executed(self._guard, approval, by, tools).run()

    async def aexecute(
        self, approval_id: str, *, by: str, tools: Iterable[Any], tenant: str | None = None
    ) -> Any:
        """Like `execute`, on an event loop."""
        approval = self.show(approval_id, tenant=tenant)
        return await Executed(self._guard, approval, by, tools).arun()


def _check_edits(approval: Approval, edits: Mapping[str, Any]) -> None:
    """Check edited arguments against the tool's schema where the library for it is installed."""
    try:
        from . import _jsonschema
    except ImportError:
        return  # the contract checks them again before the call starts
    problem = _jsonschema.problem_of_edits(approval.input_schema or {}, jsonable(dict(edits)))
    if problem:
        raise DecisionRefused(
            f"{approval.tool}: the edit does not fit the tool's contract: {problem}"
        )


class Effects:
    """The effect ledger: `guard.effects`."""

    def __init__(self, store: Store, watches: Mapping[str, Watch] | None = None) -> None:
        self._store, self._watches = store, watches or {}

    def list(
        self, state: str | None = None, *, run_id: str | None = None, tenant: str | None = None,
        limit: int = 100,
    ) -> list[Effect]:  # fmt: skip
        """Return effects, newest first; `state="in_doubt"` lists what needs a ruling."""
        self._store.transact(settling.sweep, self._watches)
        return self._store.read(queries.effects, tenant, state, run_id, limit)

    def show(self, effect_id: str, *, tenant: str | None = None) -> Effect:
        """Return one effect; a unique beginning of its id is enough.

        Raises:
            DecisionRefused: there is none, or more than one.
        """
        return _only(self._store.read(queries.effect, tenant, effect_id), "effect", effect_id)

    def resolve(
        self, effect_id: str, ruling: str, *, by: str, reason: str, result: Any = None,
        tenant: str | None = None,
    ) -> Effect:  # fmt: skip
        """Rule on an effect in doubt, as a named person with a reason.

        Args:
            effect_id: the effect, or a unique beginning of its id.
            ruling: `happened`, `not_happened` (it may start again) or `failed` (for good).
            by: the person.
            reason: how they know.
            result: for `happened`: what later callers get as its result.
            tenant: look only in this tenant.

        Raises:
            DecisionRefused: it is not in doubt, or by or reason is missing.
        """
        if by == "reconcile" or not is_person(by) or not reason.strip():
            raise DecisionRefused(
                "a ruling needs the person who makes it (no agent is one) and how they know: by, reason"
            )
        effect = self.show(effect_id, tenant=tenant)
        watch = self._watches.get(effect.tool)
        if watch is not None and effect.state is EffectState.EXECUTING:
            who = RunRef(effect.tenant, effect.run_id, f"person:{by}")
            self._store.transact(settling.lose, who, effect.id, effect.fence, watch)
        kept = "j" + encode(result).decode() if ruling == "happened" else None
        ruled = self._store.transact(
            settling.resolve, effect.tenant, effect.id, ruling, by, reason, kept
        )
        return _raised(ruled)


class Runs:
    """The run records: `guard.runs`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(
        self, *, status: str | None = None, tenant: str | None = None, limit: int = 100
    ) -> list[RunInfo]:
        """Return runs, newest first."""
        return self._store.read(queries.runs, tenant, limit, status)

    def show(self, run_id: str, *, tenant: str | None = None) -> RunInfo:
        """Return one run; a unique beginning of its id is enough.

        Raises:
            DecisionRefused: there is none, or more than one.
        """
        return _only(self._store.read(queries.run, tenant, run_id), "run", run_id)

    def events(
        self, run_id: str, *, tenant: str | None = None, after: int = 0
    ) -> builtins.list[Event]:
        """Return the events of a run in order, those after sequence number *after*."""
        run = self.show(run_id, tenant=tenant)
        return self._store.read(queries.events, run.tenant, run.id, after)

    def verify(self, run_id: str, *, tenant: str | None = None) -> str | None:
        """Return None if the run's hash chain is whole, else what is wrong with it."""
        run = self.show(run_id, tenant=tenant)
        return self._store.read(queries.broken_link, run.tenant, run.id)

    def cancel(self, run_id: str, *, by: str, reason: str, tenant: str | None = None) -> None:
        """Stop a run for good: nothing more starts in it, and it cannot be resumed."""
        if not by.strip() or not reason.strip():
            raise DecisionRefused("cancelling a run needs by and reason")
        run = self.show(run_id, tenant=tenant)
        self._store.transact(lifecycle.cancel_run, run.tenant, run.id, by, reason)

    def answer(self, run_id: str, text: str, *, by: str, tenant: str | None = None) -> Ending:
        """Answer the question in which a run fell back; the run may write again.

        The answer allows nothing by itself: it is data for the next calls, in
        `current_run().answer`, and those are decided on as all others.

        Args:
            run_id: the run, or a unique beginning of its id.
            text: the answer.
            by: the person; not the agent.
            tenant: look only in this tenant.

        Raises:
            DecisionRefused: the run waits for no answer, or text or by is missing.
            RunHalted: the run was cancelled.
        """
        run = self.show(run_id, tenant=tenant)
        return _raised(self._store.transact(endings.answer, run.tenant, run.id, text, by))


def _only(found: Sequence[T], what: str, name: str) -> T:
    if len(found) == 1:
        return found[0]
    if not found:
        raise DecisionRefused(f"there is no {what} {name!r} in this store")
    raise DecisionRefused(f"{name!r} is the beginning of more than one {what}; give more of it")


def _raised(answer: T | GuardError) -> T:
    if isinstance(answer, GuardError):
        raise answer
    return answer
