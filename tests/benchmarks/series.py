"""Series with figures that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from benchmarks.figures import Group, Series
from benchmarks.laps import Lap, NotAvailable, Place, Subject, SyncWork


def never(place: Place) -> AbstractContextManager[SyncWork]:
    """Stand for a subject's work in tests that measure nothing."""
    raise NotAvailable("a test opens no subject")


FLOOR = Subject("raw", "write", "floor", never)
OURS = Subject("guarded write, new store", "write", "ours", never)
PEER = Subject("LangGraph @task", "write", "peer", never, "LangGraph")


def series(subject: Subject, costs: Sequence[float], *, steps: int = 4) -> Series:
    """Make a subject that took these seconds a step, one figure a round."""
    return Series(subject, [Lap(cost * steps, [cost] * steps) for cost in costs])


def missing(subject: Subject, reason: str) -> Series:
    """Make a subject that could not be measured."""
    return Series(subject, trouble=reason)


def group(*found: Series, steps: int = 100) -> Group:
    """Put series into the group that they name."""
    return Group(found[0].subject.group, list(found), steps)


def crowd(subject: Subject, name: str) -> Subject:
    """Make of a subject one of 32 callers, under a name of that group."""
    return replace(subject, name=name, group="writers", callers=32)
