"""What a run cost, told apart by what for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from ..ledger.costs import KIND
from ..model import dollars

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..model import Event


@dataclass(frozen=True, slots=True)
class Costs:
    """What a run cost, in US dollars; together they are what it has spent.

    Attributes:
        tool: of tools, without retrievals and second attempts.
        retry: what second and later attempts cost.
        human_minutes: of people, also those whose price is not known.
        unknown: kinds of which something is not known.
    """

    model: Decimal
    tool: Decimal
    retrieval: Decimal
    retry: Decimal
    human: Decimal
    other: Decimal
    human_minutes: Decimal
    unknown: tuple[str, ...] = ()


def costs_of(events: Iterable[Event]) -> Costs:
    """Return what the run of these *events* cost."""
    spent, minutes, unknown = Counter[str](), Decimal(0), set[str]()
    for event in events:
        kind, nanos = _of(event)
        if kind and nanos is None:
            unknown.add(kind)
        spent[kind] += nanos or 0
        if event.kind == KIND:
            minutes += Decimal(event.data.get("minutes", "0"))
    named = ("model", "tool", "retrieval", "retry", "human", "other")
    found = {name: dollars(spent[name]) for name in named}
    return Costs(**found, human_minutes=minutes, unknown=tuple(sorted(unknown)))


def _of(event: Event) -> tuple[str, int | None]:
    """Return what an event says was spent, and for what."""
    data = event.data
    if event.kind == "model.called":
        return "model", data.get("cost_nanos")
    if event.kind == KIND:
        return ("retry" if data.get("retry") else data["kind"]), data["nanos"]
    if not data.get("spent_nanos"):
        return "", 0
    again = data.get("attempt", 1) > 1
    kind = "retrieval" if event.kind == "retrieved" else "tool"
    return ("retry" if again else kind), data["spent_nanos"]
