"""What `-o json` prints: these keys are a promise; times are ISO 8601, money is text."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypedDict

from ..model import dollars
from .text import plain_result
from .verdicts import verdict_json

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping
    from decimal import Decimal

    from ..model import Approval, Decision, Effect, Limits, RunInfo
    from ..record import Attempt, Question, Step, Stop, Vote


class LimitsJson(TypedDict):
    """A run's budget; null leaves a limit out."""

    max_steps: int | None
    max_model_calls: int | None
    max_tool_calls: int | None
    max_spend_usd: str | None
    max_seconds: float | None
    max_repeats: int | None


class RunJson(TypedDict):
    """A run; `retries`, `writes`, `waiting` and `in_doubt` count its effects."""

    id: str
    tenant: str
    workflow: str
    status: str
    part: int
    agent: str
    on_behalf_of: str | None
    started_at: str
    updated_at: str
    finished_at: str | None
    steps: int
    model_calls: int
    tool_calls: int
    writes: int
    retries: int
    waiting: int
    in_doubt: int
    input_tokens: int
    output_tokens: int
    spent_usd: str
    held_usd: str
    cost_complete: bool
    limits: LimitsJson
    policy_version: str
    error: str | None
    ending: dict[str, Any] | None


class StepJson(TypedDict):
    """A step of a run; `cost_usd` is null where the model's price is not known."""

    step: int
    kind: str
    name: str
    outcome: str
    actor: str
    call_id: str | None
    began_at: str
    ended_at: str | None
    waited_s: float
    decision: str | None
    rule: str | None
    policy_version: str | None
    contract_version: str | None
    payload_hash: str | None
    effect_id: str | None
    arguments: Any
    result: Any
    result_state: str | None
    refusal: str | None
    detail: str | None
    doubt: str | None
    approvals: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    duplicates: list[dict[str, Any]]
    verdicts: list[dict[str, Any]]
    evidence: dict[str, Any] | None
    retrieved: list[dict[str, str | None]] | None
    rulings: list[dict[str, Any]]
    cost_usd: str | None
    held_usd: str
    budgets: list[dict[str, str]]
    tokens: dict[str, int]
    late: dict[str, Any] | None
    undo: str | None
    events: list[int]
    plan: str | None
    plan_step: int | None
    prompt: str | None
    price: str | None


class ApprovalJson(TypedDict):
    """A call that waits, or waited, for people."""

    id: str
    tenant: str
    status: str
    tool: str
    arguments: dict[str, Any]
    rule: str
    run_id: str
    step: int
    requested_by: str
    on_behalf_of: str | None
    generation: int
    roles: list[str]
    quorum: int
    allow_edit: bool
    created_at: str
    expires_at: str
    effect_id: str
    payload_hash: str
    contract_version: str
    policy_version: str
    decisions: list[dict[str, Any]]
    edits: dict[str, Any] | None
    edited_by: str | None
    undo: str | None
    stage: str | None
    proposal: dict[str, Any] | None


class EffectJson(TypedDict):
    """A row of the effect ledger."""

    id: str
    tenant: str
    tool: str
    kind: str
    scope: str
    state: str
    run_id: str
    step: int
    fence: int
    attempt: int
    payload_hash: str
    contract_version: str
    doubt_reason: str | None
    result_state: str | None
    result: Any
    error: dict[str, Any] | None
    approval_id: str | None
    cost_usd: str
    created_at: str
    started_at: str | None
    finished_at: str | None
    undo: str | None
    call_id: str | None
    late: dict[str, Any] | None


def keys(shape: type) -> str:
    """Return a line for a command's help that names the keys of its JSON."""
    return f"JSON keys: {', '.join(shape.__annotations__)}."


def iso(at: dt.datetime | None) -> str | None:
    """Return a moment as ISO 8601, in UTC."""
    return None if at is None else at.isoformat()


def _must(at: dt.datetime) -> str:
    return at.isoformat()


def usd(amount: Decimal) -> str:
    """Return money as text: floats lose cents."""
    return f"{amount:f}"


def _limits(limits: Limits) -> LimitsJson:
    spend = limits.max_spend
    return {
        "max_steps": limits.max_steps, "max_model_calls": limits.max_model_calls,
        "max_tool_calls": limits.max_tool_calls,
        "max_spend_usd": None if spend is None else usd(dollars(spend)),
        "max_seconds": limits.max_seconds, "max_repeats": limits.max_repeats,
    }  # fmt: skip


def run_json(run: RunInfo, tally: Mapping[str, int]) -> RunJson:
    """Return a run as JSON."""
    return {
        "id": run.id, "tenant": run.tenant, "workflow": run.workflow, "status": run.status,
        "part": run.part, "agent": run.agent, "on_behalf_of": run.on_behalf_of,
        "started_at": _must(run.started_at), "updated_at": _must(run.updated_at),
        "finished_at": iso(run.finished_at), "steps": run.steps, "model_calls": run.model_calls,
        "tool_calls": run.tool_calls, "writes": tally["writes"], "retries": tally["retries"],
        "waiting": tally["waiting"], "in_doubt": tally["in_doubt"],
        "input_tokens": run.input_tokens, "output_tokens": run.output_tokens,
        "spent_usd": usd(run.spent_usd), "held_usd": usd(run.held_usd),
        "cost_complete": run.cost_complete, "limits": _limits(run.limits),
        "policy_version": run.policy_version, "error": run.error,
        "ending": None if run.ending is None else asdict(run.ending),
    }  # fmt: skip


def step_json(step: Step, now: dt.datetime, undo: str | None = None) -> StepJson:
    """Return a step as JSON."""
    return {
        "step": step.number, "kind": step.kind, "name": step.name, "outcome": step.outcome,
        "actor": step.actor, "call_id": step.call_id, "began_at": _must(step.began_at),
        "ended_at": iso(step.ended_at), "waited_s": step.waited(now).total_seconds(),
        "decision": step.decision, "rule": step.rule, "policy_version": step.policy,
        "contract_version": step.contract, "payload_hash": step.payload_hash,
        "effect_id": step.key, "arguments": step.arguments, "result": plain_result(step.result),
        "result_state": step.result_state, "refusal": step.refusal, "detail": step.detail,
        "doubt": step.doubt, "approvals": [_question(q) for q in step.questions],
        "attempts": [_attempt(attempt) for attempt in step.attempts],
        "duplicates": [
            {"at": _must(d.at), "first_run": d.first_run, "first_step": d.first_step,
             "call_id": d.call_id}
            for d in step.duplicates
        ],
        "verdicts": [verdict_json(verdict) for verdict in step.verdicts],
        "evidence": None if step.evidence is None else dict(step.evidence),
        "retrieved": None if step.retrieved is None else [
            {"id": d.id, "score": d.score, "sha256": d.sha256} for d in step.retrieved
        ],
        "rulings": [
            {"at": _must(r.at), "by": r.by, "ruling": r.ruling, "reason": r.reason}
            for r in step.rulings
        ],
        "cost_usd": None if step.cost_usd is None else usd(step.cost_usd),
        "held_usd": usd(step.held_usd),
        "budgets": [{"name": n, "span": s, "usd": usd(a)} for n, s, a in step.budgets],
        "tokens": dict(step.tokens), "late": None if step.late is None else dict(step.late),
        "undo": undo, "events": list(step.events), "plan": step.plan,
        "plan_step": step.plan_step, "prompt": step.prompt, "price": step.price,
    }  # fmt: skip


def _question(question: Question) -> dict[str, Any]:
    return {
        "id": question.approval_id, "status": question.status, "rule": question.rule,
        "generation": question.generation, "roles": list(question.roles),
        "quorum": question.quorum, "asked_at": iso(question.asked_at),
        "decided_at": iso(question.decided_at), "approved_hash": question.payload_hash,
        "executed_hash": question.executed_hash, "votes": [_vote(vote) for vote in question.votes],
    }  # fmt: skip


def _vote(vote: Vote) -> dict[str, Any]:
    return {
        "person": vote.person, "decision": vote.decision, "at": iso(vote.at),
        "generation": vote.generation, "roles": list(vote.roles), "reason": vote.reason,
        "changed": list(vote.changed),
    }  # fmt: skip


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number, "fence": attempt.fence, "began_at": iso(attempt.began_at),
        "ended_at": iso(attempt.ended_at), "outcome": attempt.outcome, "error": attempt.error,
    }  # fmt: skip


def stop_json(stop: Stop) -> dict[str, Any]:
    """Return a call that a budget refused as JSON."""
    return {
        "at": iso(stop.at), "after_step": stop.after, "what": stop.what, "budget": stop.budget,
        "limit": stop.limit, "used": stop.used,
    }  # fmt: skip


def approval_json(
    approval: Approval, undo: str | None = None, proposal: Mapping[str, Any] | None = None
) -> ApprovalJson:
    """Return an approval as JSON."""
    return {
        "id": approval.id, "tenant": approval.tenant, "status": approval.status,
        "tool": approval.tool, "arguments": dict(approval.arguments), "rule": approval.rule,
        "run_id": approval.run_id, "step": approval.step, "requested_by": approval.requested_by,
        "on_behalf_of": approval.on_behalf_of, "generation": approval.generation,
        "roles": list(approval.roles), "quorum": approval.quorum,
        "allow_edit": approval.allow_edit, "created_at": _must(approval.created_at),
        "expires_at": _must(approval.expires_at), "effect_id": approval.effect_id,
        "payload_hash": approval.payload_hash, "contract_version": approval.contract_version,
        "policy_version": approval.policy_version,
        "decisions": [_decision(decision) for decision in approval.decisions],
        "edits": None if approval.edits is None else dict(approval.edits),
        "edited_by": approval.edited_by, "undo": undo, "stage": approval.stage,
        "proposal": None if proposal is None else dict(proposal),
    }  # fmt: skip


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "person": decision.person, "decision": decision.decision, "roles": list(decision.roles),
        "reason": decision.reason, "at": iso(decision.at),
    }  # fmt: skip


def effect_json(effect: Effect) -> EffectJson:
    """Return an effect as JSON."""
    return {
        "id": effect.id, "tenant": effect.tenant, "tool": effect.tool, "kind": effect.kind,
        "scope": effect.scope, "state": effect.state.value, "run_id": effect.run_id,
        "step": effect.step, "fence": effect.fence, "attempt": effect.attempt,
        "payload_hash": effect.payload_hash, "contract_version": effect.contract_version,
        "doubt_reason": effect.doubt_reason, "result_state": effect.result_state,
        "result": plain_result(effect.result),
        "error": None if effect.error is None else dict(effect.error),
        "approval_id": effect.approval_id, "cost_usd": usd(effect.cost_usd),
        "created_at": _must(effect.created_at), "started_at": iso(effect.started_at),
        "finished_at": iso(effect.finished_at), "undo": effect.undo, "call_id": effect.call_id,
        "late": None if effect.late is None else dict(effect.late),
    }  # fmt: skip
