"""What verifiers said, as the record has it: of a step, and of a run as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .values import Checked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..model import Event


def checked(event: Event) -> Checked:
    """Return the verdict that an event `verified` tells of."""
    data, content = event.data, event.content or {}
    return Checked(
        verifier=data["verifier"],
        passed=data["passed"],
        reason=data.get("reason", ""),
        confidence=data.get("confidence"),
        kind=data.get("kind", "rule"),
        model=data.get("model"),
        prompt_version=data.get("prompt_version"),
        owner=data.get("owner"),
        final=data.get("final", False),
        unavailable=data.get("unavailable", False),
        diff=content.get("diff"),
    )


def verdicts(events: Iterable[Event]) -> list[Checked]:
    """Return what was said of a run as a whole, the last part of it last."""
    return [checked(event) for event in events if event.kind == "verified" and event.step is None]
