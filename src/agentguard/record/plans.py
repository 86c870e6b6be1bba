"""A run held against its plan: what was outside, out of order, and never done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..ledger.plans import KIND, OUT_OF_ORDER, OUTSIDE, Plan, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..model import Event


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of the plan, and what became of it.

    Attributes:
        arguments: as they were planned, sensitive ones hidden; None if they are not kept any more.
        calls: the steps of the run that used it up.
        done: how many of its calls have happened.
    """

    number: int
    tool: str
    arguments: Mapping[str, Any] | None
    repeat: int
    calls: tuple[int, ...]
    done: int


@dataclass(frozen=True, slots=True)
class Drift:
    """How a run stands to its last plan.

    Attributes:
        seq: the number of the event that set it.
        policy: what becomes of calls outside: note, ask or refuse.
        replaced: how many plans came before it.
        outside: steps of the run that no plan named.
        out_of_order: steps of the run that came before their turn.
        refused: steps of the run that were refused because of a plan.
    """

    seq: int
    template: str | None
    policy: str
    ordered: bool
    reads: bool
    replaced: int
    steps: tuple[PlannedStep, ...]
    outside: tuple[int, ...]
    out_of_order: tuple[int, ...]
    refused: tuple[int, ...]

    @property
    def missing(self) -> tuple[PlannedStep, ...]:
        """The steps that are not done."""
        return tuple(step for step in self.steps if step.done < step.repeat)


def drift(events: Sequence[Event]) -> Drift | None:
    """Return how the run of these *events* stands to its plan, if it has one."""
    plans = [event for event in events if event.kind == KIND]
    if not plans:
        return None
    last = plans[-1]
    plan = Plan.of(last.seq, last.data)
    later = [(e.step, e.kind, e.data) for e in events if e.seq > last.seq]
    progress = Progress(plan, b"", last.seq).told(events[-1].seq, later)
    words = [(event.data.get("plan"), event) for event in events]
    return Drift(
        last.seq, plan.template, plan.outside, plan.ordered, plan.reads, len(plans) - 1,
        _steps(plan, progress, (last.content or {}).get("steps")),
        _where(e for word, e in words if word == OUTSIDE),
        _where(e for word, e in words if word == OUT_OF_ORDER),
        _where(e for _, e in words if e.data.get("error") == "plan_violation"),
    )  # fmt: skip


def _where(events: Any) -> tuple[int, ...]:
    return tuple(sorted({event.step for event in events if event.step is not None}))


def _steps(plan: Plan, progress: Progress, shown: Any) -> tuple[PlannedStep, ...]:
    found: list[PlannedStep] = []
    for number, step in enumerate(plan.steps, 1):
        names = {name for name, used in progress.used.items() if used == number}
        calls = sorted({at for at, name in progress.calls.items() if name in names})
        arguments = shown[number - 1]["arguments"] if shown else None
        done = len(names & progress.done)
        found.append(PlannedStep(number, step.tool, arguments, step.repeat, tuple(calls), done))
    return tuple(found)
