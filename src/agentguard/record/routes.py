"""When a heavier model has taken over in a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ledger.routes import MOVED

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    from ..model import Event


@dataclass(frozen=True, slots=True)
class RouteChange:
    """One change of the model that a role has.

    Attributes:
        before: the model before it, by the name that the configuration has for it.
        after: the model from then on.
    """

    at: dt.datetime
    role: str
    before: str
    after: str
    why: str


def route_changes(events: Iterable[Event]) -> list[RouteChange]:
    """Return the changes of models that a run's *events* tell of, each role's first one."""
    found: dict[str, RouteChange] = {}
    for event in events:
        if event.kind == MOVED:
            role, data = event.data["role"], event.data
            change = RouteChange(event.at, role, data["from"], data["to"], data["why"])
            found.setdefault(role, change)
    return list(found.values())
