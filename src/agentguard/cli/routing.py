"""How `agentguard runs show` tells that a heavier model has taken over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .output import Line
from .shapes import iso
from .text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..record import RouteChange
    from .loading import Page


def route_json(change: RouteChange) -> dict[str, Any]:
    """Return a change of a role's model as JSON."""
    return {
        "at": iso(change.at), "role": change.role, "from": change.before, "to": change.after,
        "why": change.why,
    }  # fmt: skip


def route_lines(page: Page) -> Iterator[Line]:
    """Yield which roles have another model since when."""
    for change in page.routes:
        moved = f"{escaped(change.role)}: {escaped(change.before)} -> {escaped(change.after)}"
        yield Line("routing", f"{moved}, {escaped(change.why)}", "note")
