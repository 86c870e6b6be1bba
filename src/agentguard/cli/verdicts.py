"""Verdicts on the terminal and as JSON: who said it, how sure, and what differed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .output import Line
from .text import arguments, capped, escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..record import Checked

_LONGEST = 500


def verdict_lines(verdict: Checked, label: str = "verdict") -> Iterator[Line]:
    """Yield what one verifier said, and what it found to differ."""
    said = "confirmed" if verdict.passed else "NOT confirmed"
    why = f": {escaped(verdict.reason)}" if verdict.reason else ""
    sure = f", confidence {escaped(verdict.confidence)}" if verdict.confidence else ""
    state = "ok" if verdict.passed else "failed"
    yield Line(label, f"{escaped(verdict.verifier)}{_who(verdict)} {said}{why}{sure}", state)
    if verdict.diff:
        yield Line("differs", capped(arguments(dict(verdict.diff)), _LONGEST))


def _who(verdict: Checked) -> str:
    """Return what tells this verifier from the proposer; rules are code, as their name says."""
    if verdict.kind == "rule" and not verdict.owner:
        return ""
    parts = [f"model {escaped(verdict.model)}" if verdict.model else verdict.kind]
    if verdict.prompt_version:
        parts.append(f"prompt {escaped(verdict.prompt_version)}")
    if verdict.owner:
        parts.append(f"of {escaped(verdict.owner)}")
    return f" ({', '.join(parts)})"


def verdict_json(verdict: Checked) -> dict[str, Any]:
    """Return a verdict as JSON types."""
    return asdict(verdict)
