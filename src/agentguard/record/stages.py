"""How tools and workflows moved up and down while a run ran, or by the word of an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    from ..model import Event


@dataclass(frozen=True, slots=True)
class StageChange:
    """One change of the stage of a tool or a workflow.

    Attributes:
        step: the step whose outcome caused it; None for what people did, and for ends of runs.
        tool: the tool, or the workflow where a service level of one moved it.
        before: the stage before it; None if nothing was known of the tool.
        after: the stage from then on; None if nothing is any more.
        why: verified outcomes, a failed verdict, an incident, pinned or unpinned; a service level
            that is burning, exhausted or restored; an override.
        passed: outcomes that were counted up to it, with those that *failed*: the verified ones
            since its last change; for a service level, those of its window.
        slo: the service level that moved it; None where its own outcomes or a person did.
    """

    at: dt.datetime
    step: int | None
    tool: str
    before: str | None
    after: str | None
    why: str
    by: str
    passed: int
    failed: int
    reason: str
    slo: str | None = None


def changes(events: Iterable[Event]) -> list[StageChange]:
    """Return the changes of stages that a run's *events* tell of."""
    return [_change(event) for event in events if event.kind == "autonomy.changed"]


def _change(event: Event) -> StageChange:
    said = event.data
    counts = ("passed", "failed") if "slo" not in said else ("good", "bad")
    return StageChange(
        event.at, event.step, said.get("tool") or said.get("workflow", ""), said.get("from"),
        said.get("to"), said["why"], said["by"], said[counts[0]], said[counts[1]],
        (event.content or {}).get("reason", ""), said.get("slo"),
    )  # fmt: skip
