"""Decide: everything about a call that needs no I/O."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ._independence import proposers_of
from .canonical import canonical, effect_key, jsonable, keyed_hash
from .errors import (
    ContractViolation,
    DecisionRefused,
    ForbiddenAction,
    GuardError,
    PermissionDenied,
)
from .ledger.rows import load_effect
from .ledger.values import NEW_STEP, Ask, Draft, Intent
from .run import CALL
from .tool import Call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .ledger.values import Execution
    from .protocols import CallRef
    from .run import Run
    from .tool import Tool

MAX_PAYLOAD_BYTES = 1024 * 1024
"""Larger arguments are refused: pass a reference to the data instead."""


def decide(
    run: Run, tool: Tool, ref: CallRef | None, instance: Any, args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Call:  # fmt: skip
    """Return the call with its arguments checked, hashed and keyed.

    Raises:
        ContractViolation: the arguments do not fit.
        ForbiddenAction: the tool may never be called.
        PermissionDenied: the principal lacks a scope.
    """
    values, given = tool.arguments.read(instance, args, kwargs)
    _permit(run, tool)
    plain = {name: jsonable(value, name) for name, value in values.items()}
    call = Call(
        tool=tool,
        run_id=run.id,
        principal=run.principal,
        arguments=values,
        given=given,
        plain=plain,
        payload_hash=payload_hash(run, tool, plain),
        at=run.around.store.clock.now(),
        outer=CALL.get(),
        ref=ref,
    )
    if run.autonomy is not None:
        call.stage = run.autonomy.stage(tool.name, tool.effect)
    watched = tool.name in run.guard.slos.of_tools
    if tool.durable or run.plans.reads or call.stage is not None or watched:
        if tool.per_call or tool.key_of is None:
            call.occurrence = _occurrence(run, call)
        call.scope, call.idempotency_key = _key(run, call, tool.major)
        if run.former_keys:
            call.idempotency_key = _former_key(run, call) or call.idempotency_key
    if run.execution is not None and call.outer is None:
        _execute(run.execution, call)
    return call


def _execute(execution: Execution, call: Call) -> None:
    """Make *call* the one that was drafted: under its key, and only with its payload."""
    if (execution.tool, execution.payload_hash) != (call.tool.name, call.payload_hash):
        raise DecisionRefused(
            f"{execution.approval} cannot be executed: its record does not hold the arguments as they"
            " were when it was drafted"
        )
    call.executes, call.idempotency_key = execution, execution.key


def _permit(run: Run, tool: Tool) -> None:
    if tool.effect == "forbidden":
        raise ForbiddenAction(f"{tool.name} is forbidden: no agent may call it")
    scopes = run.principal.scopes
    missing = [] if scopes is None else [s for s in tool.scopes if s not in scopes]
    if missing:
        raise PermissionDenied(f"{tool.name} needs the scope {', '.join(missing)}")


def payload_hash(run: Run, tool: Tool, plain: Mapping[str, Any]) -> str:
    """Return the tenant-keyed hash of what will run, without declared volatile arguments.

    The contract's version is no part of it: approvals are bound to that on their own, and what
    happened under an older contract is still replayed, not refused.
    """
    payload = {n: v for n, v in plain.items() if n not in tool.volatile} if tool.volatile else plain
    data = canonical([tool.name, payload])
    if len(data) > MAX_PAYLOAD_BYTES:
        raise ContractViolation(
            f"{tool.name}: the arguments have {len(data)} bytes, {MAX_PAYLOAD_BYTES} are allowed;"
            " pass a reference to the data instead"
        )
    return keyed_hash(run.hash_key, data)


def _occurrence(run: Run, call: Call) -> int:
    """Count equal calls: within one execution of the runtime's call, or in this part of the run."""
    place = (call.tool.name, call.payload_hash)
    if call.ref is None:
        return run.meter.occurrence(*place)
    count = call.ref.seen.get(place, 0)
    call.ref.seen[place] = count + 1
    return count


def _former_key(run: Run, call: Call) -> str | None:
    """Return the key that schema 1 gave this call, with the whole version in it, if it was used."""
    _, key = _key(run, call, call.tool.version.partition(".")[0])
    return key if run.around.store.read(load_effect, run.principal.tenant, key) else None


def _key(run: Run, call: Call, major: str) -> tuple[str, str]:
    tool = call.tool
    comes_again = tool.rules or run.plans.asks_for_reads or call.stage is not None
    if tool.key_of is None and not comes_again:
        return "call", f"call_{os.urandom(16).hex()}"
    # A read that people have to decide on must be the same one when it comes back.
    scope, fields = tool.key_of(call) if tool.key_of else ("call", call.place())
    tenant = "" if scope == "global" else run.principal.tenant
    return scope, effect_key(tenant, scope, tool.name, major, fields)


def call_id(call: Call) -> str | None:
    """Return the runtime's call id with its occurrence: models reuse ids."""
    if call.executes is not None:
        return call.executes.call_id
    return None if call.ref is None else call.ref.path


def rule_for(call: Call) -> Ask | None:
    """Return the first rule that wants a person to decide, or None; rules are asked once a call."""
    if not call.ruled:
        for rule in call.tool.rules:
            call.ask = rule(call)
            if call.ask is not None:
                break
        call.ruled = True
    return call.ask


def needs_start(run: Run, call: Call) -> bool:
    """Return whether this call needs the start transaction.

    A read needs it only if a rule asks, or has asked before: what people have decided stands,
    whatever the rule says now.
    """
    tool = call.tool
    if tool.effect == "write" or tool.reserve is not None or tool.rate is not None:
        return True
    if tool.circuit is not None or tool.name in run.guard.slos.of_tools:
        return True
    if run.plans.reads:
        return True
    if not tool.rules and call.stage is None:
        return False
    if rule_for(call) is not None or call.stage not in (None, "auto"):
        return True
    return (
        run.around.store.read(load_effect, run.principal.tenant, call.idempotency_key) is not None
    )


def shown(run: Run, call: Call) -> dict[str, Any]:
    """Return the arguments as the record may show them."""
    return run.redactor.hide(call.tool.sensitive, call.plain)


def intent_of(run: Run, call: Call) -> Intent:
    """Return what the start transaction needs to know of *call*."""
    tool = call.tool
    reservations, cost = tool.reserve(call) if tool.reserve else ((), 0)
    ask = rule_for(call)
    intent = Intent(
        run=run.ref,
        key=call.idempotency_key,
        scope=call.scope,
        tool=tool.name,
        effect=tool.effect,
        contract_version=tool.version,
        policy_version=tool.policy,
        payload_hash=call.payload_hash,
        claim_id=os.urandom(8).hex(),
        rule=ask.rule if ask else ("no rule asks" if tool.rules else "allowed by contract"),
        arguments=shown(run, call),
        ask=ask,
        input_schema=tool.input_schema if ask or tool.who else None,
        frozen_fields=_frozen(tool) if ask or tool.who else (),
        call_id=call_id(call),
        cost=cost,
        reservations=reservations,
        rate=tool.rate,
        breaker=tool.circuit,
        lease_us=int((tool.timeout or 0) * 1_000_000),
        dedupe_us=_dedupe(tool),
        undo=tool.undo or ("irreversible" if tool.irreversible else None),
        agent=run.principal.agent,
        subject=run.principal.subject,
        limits=None if call.undoes else run.limits,
        undoes=call.undoes,
        values=call.arguments,
        plans=run.plans,
        who=tool.who,
        refusal=tool.duties.refusal(call, proposers_of(run)) if tool.duties else None,
        workflow=run.workflow,
        staged=call.stage is not None,
        watch=run.guard.slos.of_tools.get(tool.name),
    )
    _place(run, call, intent)
    return intent


def _place(run: Run, call: Call, intent: Intent) -> None:
    """Say which draft *call* executes, and how far its stage lets it go."""
    if call.executes is not None:
        intent.executes, intent.step = call.executes.approval, call.executes.step
    if run.autonomy is not None and call.stage is not None and call.undoes is None:
        intent.ceiling, intent.begins = call.stage, run.autonomy.begins(call.tool.name)


def _frozen(tool: Tool) -> tuple[str, ...]:
    return tuple(sorted({*tool.key_fields, *tool.sensitive}))


def _dedupe(tool: Tool) -> int | None:
    if tool.on_doubt != "retry_same_key" or tool.dedupe_seconds is None:
        return None
    # A margin of a tenth, so that the last retry still arrives inside the backend's window.
    return int(tool.dedupe_seconds * 900_000)


def note_refusal(run: Run, tool: Tool, ref: CallRef | None, error: GuardError) -> None:
    """Put a call that was refused before it had a key into the record; it takes a step."""
    error.run_id = run.id
    data = {
        "tool": tool.name, "effect": tool.effect, "decision": "deny", "error": error.kind,
        "reason": error.message[:500], "contract": tool.version, "policy": tool.policy,
        "call_id": ref.id if ref else None,
    }  # fmt: skip
    run.meter.note(Draft("step.decided", run.redactor.scrub(data), NEW_STEP))
