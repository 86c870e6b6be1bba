"""The two plots of the page: who does how many steps a second, and what a large ledger costs."""

from __future__ import annotations

from .cells import number_of
from .figures import Group, Series, rate, ratio, spread
from .sizes import KINDS, OPERATIONS, SIZES
from .svg import Bar, Line, bars, curves

PEERS, LEDGER = "benchmarks-peers.svg", "benchmarks-ledger-size.svg"
STORES = {"writers": "SQLite", "writers-postgres": "PostgreSQL"}
LIMIT = 1.2


def plots(groups: list[Group]) -> dict[str, str]:
    """Draw what was measured: file names, and the drawings."""
    named = {group.name: group for group in groups}
    drawn: dict[str, str] = {}
    crowds = [named[name] for name in STORES if name in named]
    if chosen := [bar for group in crowds for bar in bars_of(group)]:
        subtitle = (
            "blue: agentguard, orange: peers, grey: floors; bars are medians, strokes all rounds"
        )
        drawn[PEERS] = bars("Steps per second, 32 callers", subtitle, chosen)
    if "size" in named and (lines := lines_of(named["size"])):
        subtitle = "time a call, as a multiple of the time with 1,000 records; across: records"
        drawn[LEDGER] = curves("Cost against the size of the ledger", subtitle, lines, LIMIT)
    return drawn


def bars_of(group: Group) -> list[Bar]:
    """One bar a subject, the fastest first."""
    found = [bar_of(group, one) for one in group.series if one.measured]
    return sorted(found, key=lambda bar: -bar.value)


def bar_of(group: Group, series: Series) -> Bar:
    """Turn one subject's rounds into a bar."""
    value = spread(rate(series))
    label = f"{series.subject.name} · {STORES[group.name]}"
    role, said = series.subject.role, number_of(value.median)
    return Bar(label, role, value.median, value.low, value.high, said)


def lines_of(group: Group) -> list[Line]:
    """One line for each operation on each store that was measured with the smallest ledger."""
    lines = [
        Line(f"{name}, {kind}", points_of(group, f"{name}, {{:,}} records, {kind}"))
        for kind in KINDS
        for name in OPERATIONS
    ]
    return [line for line in lines if len(line.points) > 1]


def points_of(group: Group, pattern: str) -> list[tuple[float, float]]:
    """The multiples of the smallest ledger's cost, by size."""
    found = [(size, group.named(pattern.format(size))) for size in SIZES]
    small = found[0][1]
    if small is None:
        return []
    return [(size, ratio(one, small).median) for size, one in found if one]
