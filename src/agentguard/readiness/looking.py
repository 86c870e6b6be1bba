"""How checks look: at each tool that writes, at a key of the configuration, at the newest runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .values import Said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .project import Project
    from .sample import Sample
    from .subjects import Subject

RUNS_NEEDED: Final = 30
"""Of fewer runs nothing is said to hold; what is wrong already is said."""

GIVE_TOOLS: Final = "--tools MODULE[:ATTRIBUTE]"
NAME_STORE: Final = "--store URL, or AGENTGUARD_STORE"


def passed(evidence: str) -> Said:
    """Say that it holds."""
    return Said("pass", evidence)


def failed(evidence: str, action: str) -> Said:
    """Say that it does not hold, and what to do."""
    return Said("fail", evidence, action)


def unknown(evidence: str, action: str) -> Said:
    """Say that it cannot be told, and what would tell it."""
    return Said("unknown", evidence, action)


def holds(good: object, evidence: str, wrong: str, action: str) -> Said:
    """Say *evidence* if it is *good*, else what is *wrong* and what to do."""
    return passed(evidence) if good else failed(wrong, action)


def every_tool(
    judge: Callable[[Subject, Project], Said | None],
) -> Callable[[Project], Iterator[Said]]:
    """Look at every tool that is declared, forbidden ones aside."""
    return _each(judge, ("read", "write"), "no tool that was given runs")


def every_write(
    judge: Callable[[Subject, Project], Said | None], none: str = "no tool that was given writes"
) -> Callable[[Project], Iterator[Said]]:
    """Look at every tool that writes; *none* is said where *judge* says nothing of any."""
    return _each(judge, ("write",), none)


def _each(
    judge: Callable[[Subject, Project], Said | None], effects: tuple[str, ...], none: str
) -> Callable[[Project], Iterator[Said]]:
    def look(project: Project) -> Iterator[Said]:
        if not project.subjects:
            yield no_tools(project)
            return
        asked = [s for s in project.subjects if s.effect is None or s.effect in effects]
        found = [(s, judge(s, project) if s.effect else undeclared()) for s in asked]
        told = [about(subject, said) for subject, said in found if said is not None]
        yield from told or [passed(none)]

    return look


def about(subject: Subject, said: Said) -> Said:
    """Say it of a tool, at its place."""
    return replace(said, tool=subject.name, file=subject.file, line=subject.line)


def no_tools(project: Project) -> Said:
    """Say that no tool was given, and which the record knows."""
    known = sorted(project.record.tools) if project.record else []
    more = f"; the record knows {', '.join(known)}" if known else ""
    return unknown(f"no tool was given{more}", GIVE_TOOLS)


def undeclared() -> Said:
    """Say that nothing is known of a tool that may do anything."""
    return unknown("cannot be told before it says what it does", "see safety.declared")


def unusable(subject: Subject) -> Said:
    """Say that nothing more is known of a tool that cannot be used."""
    return unknown(f"cannot be told before it can be used: {subject.error}", "see safety.declared")


def in_file(
    key: str, judge: Callable[[Project], Said]
) -> Callable[[Project], Iterator[Said]]:  # fmt: skip
    """Look at what the configuration says under *key*."""

    def look(project: Project) -> Iterator[Said]:
        yield replace(judge(project), file=project.source, line=project.line(key))

    return look


def newest_runs(
    judge: Callable[[Sample, Project], Said],
) -> Callable[[Project], Iterator[Said]]:
    """Look at the newest runs; without a record nothing is known."""

    def look(project: Project) -> Iterator[Said]:
        if project.record is None:
            yield unknown("there is no record here", NAME_STORE)
        else:
            yield judge(project.record, project)

    return look


def enough(count: int, said: Said, *, needed: int = RUNS_NEEDED, what: str = "run") -> Said:
    """Let a pass stand if *count* is enough for one; else say how many more are needed."""
    if said.status != "pass" or count >= needed:
        return said
    return too_few(count, f"so far: {said.evidence}", needed=needed, what=what)


def too_few(count: int, seen: str, *, needed: int = RUNS_NEEDED, what: str = "run") -> Said:
    """Say what was *seen*, and how many more are needed."""
    evidence = f"{counted(count, what)}, and {needed} are needed; {seen}"
    return unknown(evidence, f"{counted(needed - count, f'more {what}')}, then check again")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(hits: int, count: int) -> str:
    """Return a share as people read it."""
    return f"{100 * hits / count:.1f} %" if count else "none"
