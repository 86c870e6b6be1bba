"""What laps add up to: medians, spreads, and ratios of laps that were run side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from .laps import Lap, Subject

LIBRARIES = ("LangGraph", "DBOS", "Powertools")
"""The peers that have a column of their own."""


@dataclass(slots=True)
class Series:
    """A subject and its laps, in the order in which they were run.

    Attributes:
        subject: what was measured.
        laps: one a round; those of one round were run right after each other.
        trouble: why there are none, or no more.
    """

    subject: Subject
    laps: list[Lap] = field(default_factory=list)
    trouble: str = ""

    @property
    def measured(self) -> bool:
        """Whether it took part in every round; half a series would skew its ratios."""
        return bool(self.laps) and not self.trouble


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and how far the rounds lay apart: the noise."""

    median: float
    low: float
    high: float
    iqr: float


def spread(values: Sequence[float]) -> Spread:
    """Sum up one value a round."""
    low, _, high = (
        quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    )
    return Spread(median(values), min(values), max(values), high - low)


def cost(series: Series) -> list[float]:
    """Seconds or bytes a step, for each round: the one caller's median, or the wall time shared out."""
    if series.subject.callers == 1:
        return [median(lap.steps) for lap in series.laps]
    return [lap.wall / len(lap.steps) for lap in series.laps]


def rate(series: Series) -> list[float]:
    """Steps a second, for each round, opening and closing of runs and workflows included."""
    return [len(lap.steps) / lap.wall for lap in series.laps]


def ratio(series: Series, to: Series) -> Spread:
    """Cost over cost, round by round, so that a machine that slows down slows both."""
    return spread([mine / theirs for mine, theirs in zip(cost(series), cost(to), strict=True)])


def speedup(series: Series, over: Series) -> Spread:
    """How many times the steps a second, round by round."""
    return ratio(over, series)


def percentile(series: Series, percent: int) -> float:
    """Seconds within which *percent* of all its steps were done, over all rounds."""
    steps = [step for lap in series.laps for step in lap.steps]
    return quantiles(steps, n=100, method="inclusive")[percent - 1] if len(steps) > 1 else steps[0]


@dataclass(frozen=True, slots=True)
class Group:
    """All series of one group, measured in alternation.

    Attributes:
        name: one of `registry.GROUPS`.
        series: one a subject, floors first.
        steps: how many steps each caller did in a round.
    """

    name: str
    series: list[Series]
    steps: int = 0

    def named(self, name: str) -> Series | None:
        """Find a measured series."""
        return next((one for one in self.series if one.subject.name == name and one.measured), None)

    @property
    def floor(self) -> Series | None:
        """The floor that ratios are taken to: the first one."""
        return next(
            (one for one in self.series if one.subject.role == "floor" and one.measured), None
        )

    def base(self, series: Series) -> Series | None:
        """What *series* is compared with: the subject it names, or the floor; nothing else instead."""
        beside = series.subject.beside
        return self.named(beside) if beside else self.floor

    def fastest(self, library: str, like: Series | None = None) -> Series | None:
        """The variant of a peer that did best: no ratio profits from its slower one.

        Only what is of one kind with *like* is compared with it.
        """
        kind = like.subject.kind if like else ""
        variants = [
            one
            for one in self.series
            if (one.subject.library, one.subject.kind) == (library, kind) and one.measured
        ]
        return min(variants, key=median_cost, default=None)


def median_cost(series: Series) -> float:
    """Seconds a step over all rounds."""
    return median(cost(series))
