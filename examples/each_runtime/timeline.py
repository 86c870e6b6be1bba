"""Runs as their records tell them: whether they are the same, and as lines that people read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentguard.model import Event, RunInfo

UNDECORATED = "crm-find_tickets"
VARIES = frozenset({
    "runtime",  # its name
    "at", "duration_us",  # clocks
    "approval_id", "content", "payload_hash",  # drawn by lot, or salted with what was
    "call_id",  # of a model call: some runtimes have one
})  # fmt: skip
"""What may differ between two runs of one story."""
DECISIONS = {"allow": "allowed", "ask": "asks a person", "deny": "denied"}

Lines = dict[tuple[int, str], str]
"""Step and label, and what the record says."""


def facts(event: Event) -> tuple[Any, ...]:
    """Return all that an event says, but for what may differ."""
    varies = VARIES if event.kind == "model.called" else VARIES - {"call_id"}
    if event.data.get("tool") == UNDECORATED:
        varies |= {"contract", "key"}  # the runtime says its schema; a read's key is drawn by lot
    data = {name: value for name, value in event.data.items() if name not in varies}
    return event.kind, event.step, event.actor, data


def difference(runs: Mapping[str, Sequence[Event]]) -> str:
    """Say where the first run that is not like the first of all departs from it; "" if none does.

    Args:
        runs: a runtime's name, and the events of its run.
    """
    (first, expected), *others = ((name, [*map(facts, events)]) for name, events in runs.items())
    for name, found in others:
        if found != expected:
            same = sum(1 for _ in _common(found, expected))
            told = [str(e[same]) if same < len(e) else "no more" for e in (expected, found)]
            return f"event {same + 1}: {first} has {told[0]}, {name} has {told[1]}"
    return ""


def _common(one: Sequence[Any], other: Sequence[Any]) -> Iterator[Any]:
    for mine, yours in zip(one, other, strict=False):
        if mine != yours:
            return
        yield mine


def lines(run: RunInfo, events: Sequence[Event]) -> Lines:
    """Return a run as lines; the steps of the model are only counted."""
    told: Lines = {}
    for step in sorted({e.step for e in events if e.step and e.kind != "model.called"}):
        told |= _step(step, [event for event in events if event.step == step])
    last = run.steps + 1
    told[last, "   model calls"] = f"{run.model_calls}, ${run.spent_usd.normalize():f}"
    told[last, "   run"] = f"{run.status}, part {run.part}"
    return told


def _step(step: int, events: Sequence[Event]) -> Lines:
    """Return a step as lines; as one, if it was allowed and ended and nothing else happened."""
    name = f"{step:2} {events[0].data.get('tool')}"
    told = [
        (f"   {label}" if label else name, value) for each in events for label, value in _of(each)
    ]
    if [label for label, _ in told] == [name, "   ended"]:
        return {(step, name): ", ".join(value for _, value in told)}
    found: Lines = {}
    for label, value in told:
        before = found.get((step, label))
        found[step, label] = value if before is None else f"{before}, {value}"
    return found


def _of(event: Event) -> Iterator[tuple[str, str]]:
    """Yield what an event says, with a label but for the decision on the step."""
    data: Mapping[str, Any] = event.data
    match event.kind:
        case "approval.decided":
            yield str(data["by"]), str(data["decision"])
        case "effect.in_doubt":
            yield "in doubt", str(data["reason"]).replace("_", " ")
        case "effect.resolved":
            yield f"{event.actor.removeprefix('system:')} hook", str(data["ruling"])
        case "effect.replayed":
            yield "asked again", "from the record"
        case "verified":
            yield "verified", "confirmed" if data["passed"] else "denied"
        case "step.decided" | "step.started" | "step.finished":
            if decision := data.get("decision"):
                yield "", DECISIONS[decision]
            if data.get("outcome", "in_doubt") != "in_doubt":
                yield "ended", str(data["outcome"])
