"""Questions that a test asks the record, and what the record has instead when the answer is no."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from ..canonical import jsonable
from ..declaration import declaration_of
from ..model import EffectState, dollars, nanos
from ..record import fold, stops

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from decimal import Decimal

    from ..guard import Guard
    from ..model import Approval, Effect, RunInfo
    from ..record import Step

_ALL = 100_000
_SHOWN = 10
"""So many calls are told; a test that has more is told how many."""
_CUT = 200
_OPEN = (EffectState.EXECUTING, EffectState.IN_DOUBT)


class _Call(NamedTuple):
    """One step of one run, as far as a test is told of it."""

    run_id: str
    step: Step

    def __str__(self) -> str:
        step = self.step
        why = step.refusal or step.doubt
        said = f"{step.outcome.replace('_', ' ')} in run {self.run_id}, step {step.number}"
        return f"{said}{f' ({why})' if why else ''}: {_told(step.arguments)}"


def assert_wrote_once(
    guard: Guard, *, tool: Any, arguments: Mapping[str, Any] | None = None,
    key: str | None = None, run_id: str | None = None,
) -> Effect:  # fmt: skip
    """Check that a tool wrote exactly once and that nothing of it is open; return the effect.

    A repeat that was answered from the record is no second write, and neither is a try that is
    known to have had no effect.

    Args:
        guard: whose store is asked.
        tool: the tool, or its name.
        arguments: count only calls that had these among their arguments.
        key: count only the effect with this idempotency key, or a beginning of it.
        run_id: count only effects that this run was the first to ask for.

    Raises:
        AssertionError: it wrote never or more than once, or nobody knows.
    """
    __tracebackhide__ = True
    name = _name(guard, tool)
    calls = list(_calls(guard))
    asked_by = {(call.run_id, call.step.number): call.step.arguments for call in calls}
    found = [
        effect
        for effect in guard.effects.list(run_id=run_id, limit=_ALL)
        if (effect.tool, effect.kind) == (name, "write")
        and effect.id.startswith(key or "")
        and _fits(asked_by.get((effect.run_id, effect.step)), arguments)
    ]
    wrote = [effect for effect in found if effect.state is EffectState.SUCCEEDED]
    unclear = [effect for effect in found if effect.state in _OPEN]
    if len(wrote) == 1 and not unclear:
        return wrote[0]
    times = {0: "did not write", 1: "wrote once"}.get(len(wrote), f"wrote {len(wrote)} times")
    doubt = f" and {_counted(len(unclear), 'write')} more may have happened" if unclear else ""
    asked = _asked(arguments=arguments, key=key, run_id=run_id)
    raise AssertionError(f"{name}{asked} {times}{doubt}. {_story(name, calls)}")


def assert_waiting(
    guard: Guard, *, tool: Any = None, arguments: Mapping[str, Any] | None = None,
    run_id: str | None = None,
) -> Approval:  # fmt: skip
    """Check that exactly one such call waits for a person, and return its approval.

    Args:
        guard: whose store is asked.
        tool: the tool, or its name; any by default.
        arguments: only a call that has these among its arguments.
        run_id: only a call of this run.

    Raises:
        AssertionError: none waits, or more than one.
    """
    __tracebackhide__ = True
    name = None if tool is None else _name(guard, tool)
    waiting = guard.approvals.list("pending", limit=_ALL)
    found = [
        approval
        for approval in waiting
        if name in (None, approval.tool)
        and run_id in (None, approval.run_id)
        and _fits(approval.arguments, arguments)
    ]
    if len(found) == 1:
        return found[0]
    asked = f"{name or 'any tool'}{_asked(arguments=arguments, run_id=run_id)}"
    if found:
        raise AssertionError(
            f"{len(found)} calls of {asked} wait, not one: {_list(map(_question, found))}. Name one with"
            " tool=, arguments= or run_id=."
        )
    others = f"What waits: {_list(map(_question, waiting))}. " if waiting else "Nothing waits. "
    story = _story(name, list(_calls(guard)))
    raise AssertionError(f"No call of {asked} waits for a person. {others}{story}")


def assert_within_budget(
    guard: Guard, *, run_id: str, max_steps: int | None = None, max_model_calls: int | None = None,
    max_tool_calls: int | None = None, max_spend_usd: Decimal | str | int | None = None,
) -> RunInfo:  # fmt: skip
    """Check that a run crossed no limit and that no call of it was refused for one.

    Args:
        guard: whose store is asked.
        run_id: the run.
        max_steps: this test's own limit, beside the run's.
        max_model_calls: likewise.
        max_tool_calls: likewise.
        max_spend_usd: likewise; counts what is reserved as spent.

    Returns:
        The run, with what it used.

    Raises:
        AssertionError: a limit was crossed, a call was refused, the cost is not known where it
            is limited, or there is no limit at all.
    """
    __tracebackhide__ = True
    run = guard.runs.show(run_id)
    own = {"max_steps": max_steps, "max_model_calls": max_model_calls,
           "max_tool_calls": max_tool_calls, "max_spend_usd": max_spend_usd}  # fmt: skip
    refused = stops(guard.runs.events(run.id, tenant=run.tenant))
    over = [*_crossed(run, own), *(
        f"{stop.what or 'a call'} was refused by {stop.budget} (limit {stop.limit}, used {stop.used})"
        for stop in refused
    )]  # fmt: skip
    if over:
        raise AssertionError(f"Run {run.id} is not within its budget: {_list(over)}. {_used(run)}")
    if not any(_limits(run, own).values()) and run.limits.max_seconds is None:
        raise AssertionError(
            f"Run {run.id} has no limit, so it cannot be within one: give guard.run or this assertion a"
            f" limit. {_used(run)}"
        )
    return run


def _crossed(run: RunInfo, own: Mapping[str, Any]) -> Iterator[str]:
    """Name every limit that what was used exceeds, or that cannot be told to hold."""
    used = {"max_steps": run.steps, "max_model_calls": run.model_calls,
            "max_tool_calls": run.tool_calls, "max_spend_usd": run.spent_usd + run.held_usd}  # fmt: skip
    for name, limits in _limits(run, own).items():
        for limit in limits:
            if used[name] > limit:
                yield f"it used {used[name]} of {name}={limit}"
    if _limits(run, own)["max_spend_usd"] and not run.cost_complete:
        yield (
            "what it spent is not known, since a model it called has no price (Guard(prices=…)) or"
            " told no tokens, or a tool or a person has no price"
        )


def _limits(run: RunInfo, own: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the run's limits and the test's, by name."""
    spend = run.limits.max_spend
    of_the_run = {
        "max_steps": run.limits.max_steps, "max_model_calls": run.limits.max_model_calls,
        "max_tool_calls": run.limits.max_tool_calls,
        "max_spend_usd": None if spend is None else dollars(spend),
    }  # fmt: skip
    given = {**own, "max_spend_usd": _amount(own["max_spend_usd"])}
    return {
        name: [limit for limit in (of_the_run[name], given[name]) if limit is not None]
        for name in of_the_run
    }


def _amount(given: Any) -> Decimal | None:
    return None if given is None else dollars(nanos(given))


def _used(run: RunInfo) -> str:
    return (
        f"In all: {_counted(run.steps, 'step')}, {_counted(run.model_calls, 'model call')},"
        f" {_counted(run.tool_calls, 'tool call')}, {run.spent_usd} US dollars spent and {run.held_usd}"
        f" reserved; the run is {run.status}."
    )


def _name(guard: Guard, tool: Any) -> str:
    """Return the name under which the record knows *tool*."""
    declaration = declaration_of(tool)
    if declaration is not None:
        return guard.bind(declaration).name
    if isinstance(tool, str):
        return tool
    raise TypeError(f"tool={tool!r} is neither a tool with agentguard's decorators nor a name")


def _calls(guard: Guard) -> Iterator[_Call]:
    """Walk the calls of tools in every run, the oldest run first."""
    for run in reversed(guard.runs.list(limit=_ALL)):
        for step in fold(guard.runs.events(run.id, tenant=run.tenant)):
            if step.kind != "model":
                yield _Call(run.id, step)


def _fits(recorded: Any, asked: Mapping[str, Any] | None) -> bool:
    if asked is None:
        return True
    wanted = jsonable(dict(asked), "arguments")
    return isinstance(recorded, dict) and wanted.items() <= recorded.items()


def _asked(**filters: Any) -> str:
    """Repeat what the test asked for, as it would be typed."""
    given = [f"{name}={value!r}" for name, value in filters.items() if value is not None]
    return f" with {', '.join(given)}" if given else ""


def _story(name: str | None, calls: list[_Call]) -> str:
    """Tell what the store has of a tool; of all tools if it has nothing of that one."""
    mine = [call for call in calls if name in (None, call.step.name)]
    if mine:
        return f"The store has: {_list(map(str, mine))}."
    others = sorted({call.step.name for call in calls})
    if not others:
        return "The store has no call of any tool."
    return f"The store has no call of {name}; it has calls of {', '.join(others)}."


def _question(approval: Approval) -> str:
    where = f"{approval.tool} in run {approval.run_id}, step {approval.step}"
    return f"{where} ({approval.rule}): {_told(approval.arguments)}"


def _told(arguments: Any) -> str:
    if not arguments:
        return "no arguments" if arguments == {} else "arguments not kept"
    shown = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items()
    )
    return shown if len(shown) <= _CUT else f"{shown[:_CUT]}…"


def _list(items: Iterable[str]) -> str:
    told = list(items)
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return "; ".join(told[:_SHOWN]) + more


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
