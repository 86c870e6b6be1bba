"""Where we lose: sentences made from the figures, so that nobody can choose among them."""

from __future__ import annotations

from .cells import factor, number_of
from .figures import LIBRARIES, Group, Series, Spread, ratio
from .goals import Verdict, verdicts
from .titles import SHORT

SAME = 1.0


def where_we_lose(groups: list[Group]) -> list[str]:
    """Say how many goals are met, which are missed and by how much, and which peers are better."""
    judged = [(group, verdict) for group in groups for verdict in verdicts(group)]
    missed = [sentence_of(group, one) for group, one in judged if one.met is False]
    unjudged = [(group, one) for group, one in judged if one.met is None]
    return [tally([one for _, one in judged]), *missed, *behind(groups), *not_judged(unjudged)]


def tally(judged: list[Verdict]) -> str:
    """Count the goals, those too that nothing was measured for."""
    met = sum(one.met is True for one in judged)
    missed = sum(one.met is False for one in judged)
    left = len(judged) - met - missed
    unclear = sum(one.met is not None and not one.clear for one in judged)
    said = (
        f"Of {len(judged)} goals {met} are met, {missed} are missed and {left} could not be judged"
    )
    return f"{said}; {unclear} of the verdicts are within the noise of this run."


def sentence_of(group: Group, verdict: Verdict) -> str:
    """Say what was promised and what came out."""
    assert verdict.value is not None
    goal = verdict.goal
    number = f"{goal.number}: " if goal.number else ""
    doubt = "" if verdict.clear else ", within the noise"
    measured = factor(verdict.value)
    return (
        f"{number}{SHORT[group.name]}, {goal.subject}: the goal is {goal.sentence},"
        f" measured is {measured}{doubt}."
    )


def not_judged(found: list[tuple[Group, Verdict]]) -> list[str]:
    """Say which promises nobody has looked at, by reason."""
    by_reason: dict[str, list[str]] = {}
    for group, verdict in found:
        goal = verdict.goal
        reason = verdict.series.trouble or "too short a run, or nothing to compare it with"
        name = f"{goal.number} {SHORT[group.name]}, {goal.subject}, {goal.sentence}".strip()
        by_reason.setdefault(reason, []).append(name)
    return [f"Not judged ({reason}): {'; '.join(names)}." for reason, names in by_reason.items()]


def behind(groups: list[Group]) -> list[str]:
    """Name each peer that is better than ours at anything."""
    return [
        sentence
        for group in groups
        for series in group.series
        if series.subject.role == "ours" and series.measured
        for library in LIBRARIES
        if (sentence := beaten(group, series, library))
    ]


def beaten(group: Group, series: Series, library: str) -> str:
    """Say by how much a peer is better, if it is."""
    peer = group.fastest(library, series)
    value: Spread | None = ratio(series, peer) if peer else None
    if peer is None or value is None or value.median <= SAME:
        return ""
    doubt = ", within the noise" if value.low <= SAME else ""
    what = {"seconds": "slower", "bytes": "larger"}[series.subject.unit]
    named = ", ".join(filter(None, (peer.subject.name, peer.subject.caveat)))
    return (
        f"{SHORT[group.name]}: {series.subject.name} is {number_of(value.median)} times"
        f" {what} than {library} ({named}){doubt}."
    )
