"""How tools moved up and down while a run ran, or by the word of an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    from ..model import Event


@dataclass(frozen=True, slots=True)
class StageChange:
    """One change of a tool's stage.

    Attributes:
        step: the step whose outcome caused it; None for what people did.
        before: the stage before it; None if nothing was known of the tool.
        after: the stage from then on; None if nothing is any more.
        why: verified outcomes, a failed verdict, an incident, pinned or unpinned.
        passed: verified outcomes that were counted up to it, with those that *failed*.
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


def changes(events: Iterable[Event]) -> list[StageChange]:
    """Return the changes of stages that a run's *events* tell of."""
    return [
        StageChange(
            event.at, event.step, event.data["tool"], event.data.get("from"), event.data.get("to"),
            event.data["why"], event.data["by"], event.data["passed"], event.data["failed"],
            (event.content or {}).get("reason", ""),
        )
        for event in events
        if event.kind == "autonomy.changed"
    ]  # fmt: skip
