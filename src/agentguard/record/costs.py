"""What a run cost, told apart by what for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..ledger.costs import KIND
from ..model import dollars

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..model import Event


@dataclass(frozen=True, slots=True)
class Costs:
    """What a run cost, in US dollars; together they are what it has spent.

    Attributes:
        tool: of tools, without retrievals and second attempts.
        retry: what second and later attempts cost.
        human_minutes: of people, also those whose price is not known.
        unknown: kinds of which something is not known.
        prices: who said what models cost, each with its version.
        cached_tokens: of *input_tokens*, those that providers had in their caches.
    """

    model: Decimal
    tool: Decimal
    retrieval: Decimal
    retry: Decimal
    human: Decimal
    other: Decimal
    human_minutes: Decimal
    unknown: tuple[str, ...] = ()
    prices: tuple[str, ...] = ()
    input_tokens: int = 0
    cached_tokens: int = 0


def costs_of(events: Iterable[Event]) -> Costs:
    """Return what the run of these *events* cost."""
    spent, tokens, minutes = Counter[str](), Counter[str](), Decimal(0)
    unknown, prices = set[str](), set[str]()
    for event in events:
        data = event.data
        kind, nanos = part_of(event.kind, data)
        if kind and nanos is None:
            unknown.add(kind)
        spent[kind] += nanos or 0
        if event.kind == KIND:
            minutes += Decimal(data.get("minutes", "0"))
        elif event.kind == "model.called":
            tokens.update({n: data.get(f"{n}_tokens") or 0 for n in ("input", "cached")})
            prices.add(named(data, "price_source", "price_version", " ") or "")
    found = {name: dollars(spent[name]) for name in _PARTS}
    return Costs(
        **found, human_minutes=minutes, unknown=tuple(sorted(unknown)),
        prices=tuple(sorted(prices - {""})), input_tokens=tokens["input"],
        cached_tokens=tokens["cached"],
    )  # fmt: skip


_PARTS = ("model", "tool", "retrieval", "retry", "human", "other")


def named(data: Mapping[str, Any], name: str, version: str, sign: str) -> str | None:
    """Return what an event names, with its version behind *sign* if it has one."""
    if data.get(name) is None:
        return None
    return f"{data[name]}" + (f"{sign}{data[version]}" if data.get(version) else "")


def part_of(event: str, data: Mapping[str, Any]) -> tuple[str, int | None]:
    """Return what an event of this kind says was spent, and for what; None: nobody knows."""
    if event == "model.called":
        return "model", data.get("cost_nanos")
    if event == KIND:
        return ("retry" if data.get("retry") else data["kind"]), data["nanos"]
    if event == "step.started" and "run_nanos" in data and data["run_nanos"] is None:
        return "tool", None
    if not data.get("spent_nanos"):
        return "", 0
    again = data.get("attempt", 1) > 1
    kind = "retrieval" if event == "retrieved" else "tool"
    return ("retry" if again else kind), data["spent_nanos"]
