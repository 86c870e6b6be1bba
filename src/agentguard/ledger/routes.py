"""What a run's record says that rules which model is next."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .sealed import reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..protocols import Tx

MOVED = "model.routed"
_SINCE = (
    "SELECT seq, kind, data FROM events WHERE tenant = ? AND run_id = ? AND seq > ?"
    " AND (kind IN ('verified', 'model.called', 'model.routed')"
    """ OR (kind = 'step.finished' AND data LIKE '%"error":"VerificationFailed"%'))"""
    " ORDER BY seq"
)
"""A plain read has no event for its verdicts; what it failed with says that one was a no."""


@dataclass(frozen=True, slots=True)
class Past:
    """What has happened in a run up to an event.

    Attributes:
        seq: the last event that was read.
        refuted: failed verdicts; a verifier that gave no answer has said nothing.
        moved: the roles whose calls a heavier model has taken over.
        tokens: input and output tokens of the last model call that proposed something.
    """

    seq: int = 0
    refuted: int = 0
    moved: frozenset[str] = frozenset()
    tokens: tuple[int, int] | None = None


def since(tx: Tx, tenant: str, run_id: str, before: Past) -> Past:
    """Return what has happened in a run, going on from what was known *before*."""
    rows = list(tx.rows(_SINCE, (tenant, run_id, before.seq)))
    with reading(f"the record of run {run_id}"):
        for seq, kind, data in rows:
            before = _with(before, seq, kind, json.loads(data))
    return before


def is_refuted(kind: str, data: Mapping[str, Any]) -> bool:
    """Return whether an event tells of a failed verdict."""
    if kind == "step.finished":
        return "tool" in data and data.get("error") == "VerificationFailed"
    return kind == "verified" and data["passed"] is False and not data.get("unavailable")


def _with(past: Past, seq: int, kind: str, data: dict[str, Any]) -> Past:
    refuted, moved, tokens = past.refuted + is_refuted(kind, data), past.moved, past.tokens
    if kind == MOVED:
        moved = moved | {str(data["role"])}
    elif kind == "model.called" and data.get("error") is None and not data.get("verifier"):
        tokens = int(data["input_tokens"]), int(data["output_tokens"])
    return Past(seq, refuted, moved, tokens)
