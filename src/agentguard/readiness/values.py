"""What a check is, what it finds, and what all findings come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .project import Project

Area = Literal["tool safety", "verification", "governance", "observability", "cost controls"]
Level = Literal["minimum", "scale"]
Status = Literal["pass", "waived", "unknown", "fail"]

AREAS: Final[tuple[Area, ...]] = get_args(Area)
LEVELS: Final[tuple[Level, ...]] = get_args(Level)
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
"""From the best to the worst; a check stands where its worst finding stands."""


@dataclass(frozen=True, slots=True)
class Said:
    """What one look says.

    Attributes:
        evidence: what was seen: counts, names, what is declared.
        action: what to do next; empty where nothing is to be done.
        tool: the tool that it is about, if it is about one.
        file: where that stands, with its *line*.
    """

    status: Status
    evidence: str
    action: str = ""
    tool: str | None = None
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the checklist.

    Attributes:
        id: how waivers and reports call it.
        title: what is true where it passes.
        why: why that matters, and what counts.
        look: what looks at a project.
    """

    id: str
    area: Area
    level: Level
    title: str
    why: str
    look: Callable[[Project], Iterable[Said]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: of the project, or of one tool.

    Attributes:
        waived: the reason that the configuration gives for letting it be.
    """

    area: Area
    id: str
    title: str
    level: Level
    status: Status
    evidence: str
    action: str
    tool: str | None = None
    file: str | None = None
    line: int | None = None
    waived: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found.

    Attributes:
        findings: in the order of the checklist.
        idle: waivers under which nothing was waived.
        unheard: waivers of checks that do not exist.
    """

    findings: tuple[Finding, ...]
    idle: tuple[str, ...] = ()
    unheard: tuple[str, ...] = ()

    def standings(self, level: Level) -> Mapping[str, Status]:
        """Return how each check of *level* stands."""
        found: dict[str, Status] = {}
        for each in self.findings:
            if each.level == level:
                found[each.id] = _worse(found.get(each.id, "pass"), each.status)
        return found

    def counts(self, level: Level) -> Counter[Status]:
        """Return how many checks of *level* stand how."""
        return Counter(self.standings(level).values())

    def below(self, bar: Level) -> list[str]:
        """Return the checks that keep the project below *bar*; what is unknown is no pass."""
        levels: tuple[Level, ...] = LEVELS[: LEVELS.index(bar) + 1]
        return [
            name
            for level in levels
            for name, status in self.standings(level).items()
            if status in ("fail", "unknown")
        ]


def _worse(one: Status, other: Status) -> Status:
    return STATUSES[max(STATUSES.index(one), STATUSES.index(other))]
