"""How far an agent goes alone: draft, propose, approve, auto; of all that is said the lowest counts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ._wilson import TWO_SIDED, bounds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

STAGES = ("draft", "propose", "approve", "auto")
"""Lowest first."""
DRAFTED = STAGES[:2]
"""In these the agent's call is only written down; a person executes it later."""
LOWEST_BY_DEFAULT = "approve"
"""So far a tool falls where nothing names another floor."""
_RANK = {stage: rank for rank, stage in enumerate(STAGES)}


def lowest(*said: str | None) -> str:
    """Return the lowest of the stages that are said; `auto` if none is."""
    return min(
        (stage for stage in said if stage is not None), key=_RANK.__getitem__, default="auto"
    )


def above(stage: str, top: str) -> str:
    """Return the next stage up, as far as *top*."""
    rank = _RANK[stage]
    return stage if rank >= _RANK[top] else STAGES[rank + 1]


def below(stage: str, floor: str) -> str:
    """Return the next stage down, as far as *floor*."""
    rank = _RANK[stage]
    return stage if rank <= _RANK[floor] else STAGES[rank - 1]


def lower_bound(passed: int, count: int) -> Decimal:
    """Return the lower bound of the share that passes, of which *passed* of *count* were seen.

    Wilson's score interval at 95 %: what few outcomes cannot tell does not count as told.
    """
    return bounds(passed, count, TWO_SIDED)[0]


@dataclass(frozen=True, slots=True)
class Promotion:
    """When a tool moves up: after so many verified outcomes, so sure, and how far."""

    after: int
    confidence: Decimal
    to: str = "auto"

    def is_earned(self, passed: int, failed: int) -> bool:
        """Return whether the outcomes since the last change are enough for the next stage."""
        count = passed + failed
        return count >= self.after and lower_bound(passed, count) >= self.confidence


@dataclass(frozen=True, slots=True)
class Ladder:
    """How the stage of one tool moves with its verified outcomes.

    Attributes:
        begins: where it stands before anything is known of it.
        promote: None where it moves down only.
        floor: so far it falls.
    """

    tool: str
    begins: str
    promote: Promotion | None
    floor: str


@dataclass(frozen=True, slots=True)
class Autonomy:
    """What a configuration and a run say.

    Attributes:
        default: the stage of tools that are not named.
        tools: tool name → stage; with *promote*, where it begins.
        classes: `read` or `write` → stage.
        floor: how far a failed verdict takes a tool down; None if nothing does.
        run: the stage of this run.
    """

    default: str | None = None
    tools: Mapping[str, str] = field(default_factory=dict[str, str])
    classes: Mapping[str, str] = field(default_factory=dict[str, str])
    promote: Promotion | None = None
    floor: str | None = None
    run: str | None = None

    def in_run(self, stage: str | None) -> Autonomy:
        """Return what counts in a run that is entered with *stage*."""
        return replace(self, run=stage)

    def unless_all_auto(self) -> Autonomy | None:
        """Return None for what says no more than nothing would."""
        return None if replace(self, default=None) == Autonomy() and self._is_auto() else self

    def _is_auto(self) -> bool:
        return self.default in (None, "auto")

    def stage(self, tool: str, effect: str) -> str | None:
        """Return the ceiling of a call, or None where nothing is said of it.

        Of reads, only what names them counts.
        """
        said = effect == "write" or tool in self.tools or "read" in self.classes
        return self.ceiling(tool, effect) if said else None

    def begins(self, tool: str) -> str:
        """Return where a tool stands before it has earned anything."""
        return self.tools.get(tool, self.default) or "auto"

    def ceiling(self, tool: str, effect: str) -> str:
        """Return the stage that a call has at the most, whatever its tool has earned."""
        by_class = self.classes.get(effect)
        if effect != "write":
            return lowest(by_class, self.tools.get(tool))
        own = self.begins(tool)
        if self.promote is not None:
            own = max(own, self.promote.to, key=_RANK.__getitem__)
        return lowest(by_class, self.run, own)

    def ladder(self, tool: str) -> Ladder | None:
        """Return how the tool's stage moves, if it does."""
        if self.promote is None and self.floor is None:
            return None
        return Ladder(tool, self.begins(tool), self.promote, self.floor or LOWEST_BY_DEFAULT)
