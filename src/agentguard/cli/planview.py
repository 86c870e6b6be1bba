"""What a run cost by what for, and how it stands to its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .output import Line
from .shapes import usd
from .text import arguments, count, escaped, money

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..record import Costs, Drift, PlannedStep

_POLICIES = {"note": "noted", "ask": "asked about", "refuse": "refused"}


def costs_json(costs: Costs) -> dict[str, Any]:
    """Return what a run cost as JSON."""
    return {
        "model_usd": usd(costs.model), "tool_usd": usd(costs.tool),
        "retrieval_usd": usd(costs.retrieval), "retry_usd": usd(costs.retry),
        "human_usd": usd(costs.human), "other_usd": usd(costs.other),
        "human_minutes": f"{costs.human_minutes:f}", "unknown": list(costs.unknown),
        "prices": list(costs.prices), "cached_tokens": costs.cached_tokens,
    }  # fmt: skip


def plan_json(drift: Drift | None) -> dict[str, Any] | None:
    """Return a plan, and what became of it, as JSON."""
    if drift is None:
        return None
    return {
        "event": drift.seq, "template": drift.template, "outside": drift.policy,
        "ordered": drift.ordered, "reads": drift.reads, "replaced": drift.replaced,
        "steps": [_step_json(step) for step in drift.steps],
        "outside_steps": list(drift.outside), "out_of_order_steps": list(drift.out_of_order),
        "refused_steps": list(drift.refused), "missing": [step.number for step in drift.missing],
    }  # fmt: skip


def _step_json(step: PlannedStep) -> dict[str, Any]:
    return {
        "step": step.number, "tool": step.tool,
        "arguments": None if step.arguments is None else dict(step.arguments),
        "repeat": step.repeat, "done": step.done, "calls": list(step.calls),
    }  # fmt: skip


def split(costs: Costs) -> Iterator[Line]:
    """Yield what a run cost, by what for, if it cost anything."""
    parts = [
        f"{name} {money(amount)}"
        for name, amount in (
            ("model", costs.model), ("tools", costs.tool), ("retrieval", costs.retrieval),
            ("retries", costs.retry), ("people", costs.human), ("other", costs.other),
        )
        if amount
    ]  # fmt: skip
    if costs.human_minutes:
        parts.append(f"{costs.human_minutes:f} min of people")
    parts += [f"{kind} not known" for kind in costs.unknown]
    if parts:
        yield Line("of it", ", ".join(parts))
    if costs.prices:
        yield Line("prices", ", ".join(map(escaped, costs.prices)))
    if costs.cached_tokens:
        share = 100 * costs.cached_tokens // max(costs.input_tokens, costs.cached_tokens)
        yield Line(
            "cache", f"{costs.cached_tokens} of {costs.input_tokens} input tokens, {share} %"
        )


def progress(drift: Drift | None) -> Iterator[Line]:
    """Yield how far a run has come with its plan."""
    if drift is None:
        return
    done, many = len(drift.steps) - len(drift.missing), count(len(drift.steps), "step")
    named = f"template {escaped(drift.template)}, " if drift.template else ""
    order = ", in this order" if drift.ordered else ""
    yield Line(
        "plan", f"{named}{done} of {many} done{order}; what is outside is {_POLICIES[drift.policy]}"
    )


def drifted(drift: Drift | None) -> Iterator[Line]:
    """Yield where a run left its plan, and what it has not done of it."""
    if drift is None:
        return
    for word, steps in (
        ("outside", drift.outside), ("out of order", drift.out_of_order),
        ("not planned", drift.refused),
    ):  # fmt: skip
        if steps:
            said = "refused by the plan" if word == "not planned" else f"{word} the plan"
            said = "came before its turn in the plan" if word == "out of order" else said
            numbers = ", ".join(map(str, steps))
            yield Line(word, f"step{'s' * (len(steps) > 1)} {numbers}: {said}", "note")
    for step in drift.missing:
        yield Line("not done", _missing(step), "note")


def _missing(step: PlannedStep) -> str:
    shown = "" if not step.arguments else f" {arguments(step.arguments)}"
    times = f", {step.done} of {step.repeat}" if step.repeat > 1 else ""
    return f"step {step.number} of the plan: {escaped(step.tool)}{shown}{times}"
