"""The last calls of a run, as its record tells of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from .sealed import reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..protocols import Tx
    from .values import RunRef

_EVENTS = 256
"""So many events of a run are looked at."""
_LAST = (
    "SELECT kind, step, data, body FROM events WHERE tenant = ? AND run_id = ?"
    " ORDER BY seq DESC LIMIT ?"
)


class Recent(NamedTuple):
    """One call of a run.

    Attributes:
        payload_hash: None of a call that was refused before it had one.
        arguments: as the record shows them, or None if it does not.
        result: as the record keeps it, or None.
        error: the name of what it failed with.
        documents: the digests of what a retrieval found.
    """

    step: int | None
    tool: str
    effect: str
    payload_hash: str | None
    key: str
    call_id: str | None
    arguments: Mapping[str, Any] | None
    result: str | None
    error: str | None
    documents: tuple[str, ...] | None


def calls(tx: Tx, ref: RunRef) -> list[Recent]:
    """Return the last calls of a run that have ended, in the order of their ends."""
    rows = list(tx.rows(_LAST, (ref.tenant, ref.run_id, _EVENTS)))
    with reading(f"the record of run {ref.run_id}"):
        return list(_calls(rows[::-1]))


def _calls(rows: list[Any]) -> Iterator[Recent]:
    begun: dict[Any, dict[str, Any]] = {}
    by_key: dict[Any, dict[str, Any]] = {}
    for kind, step, text, body in rows:
        data = {**_json(body), **json.loads(text)}
        if kind in ("step.started", "step.decided") and "tool" in data:
            begun[step] = by_key[data.get("key")] = data
            if data.get("decision") == "deny":
                yield _recent(step, data, data)
        elif kind in ("step.finished", "retrieved"):
            began = data if "tool" in data else begun.get(step)
            if began is not None:
                yield _recent(step, began, data)
        elif kind == "effect.replayed" and data["key"] in by_key:
            again = {**by_key[data["key"]], "call_id": data.get("call_id")}
            yield _recent(step, again, data)


def _recent(step: int | None, began: Mapping[str, Any], ended: Mapping[str, Any]) -> Recent:
    found = ended.get("documents")
    return Recent(
        step,
        began["tool"],
        began.get("effect", "read"),
        began.get("payload_hash"),
        began.get("key", ""),
        began.get("call_id"),
        began.get("arguments"),
        ended.get("result"),
        ended.get("error"),
        None if found is None else tuple(document["sha256"] for document in found),
    )


def _json(body: str | None) -> dict[str, Any]:
    return {} if body is None else json.loads(body)
