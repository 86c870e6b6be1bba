"""Declared sensitive arguments never reach the record in clear."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .canonical import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

HIDDEN = "[hidden]"
"""What stands in the record for a sensitive argument."""

_SHORTEST = 4
"""Shorter texts would be found by chance inside others, so they are not scrubbed from texts."""


class Redactor:
    """Hides declared arguments, and the texts they held wherever else they turn up in the run."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def hide(self, names: frozenset[str], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return *values* with the named ones hidden, and remember those, to scrub texts."""
        if not names:
            return dict(values)
        for name in names & set(values):
            self._remember(values[name])
        return {name: (HIDDEN if name in names else value) for name, value in values.items()}

    def _remember(self, value: Any) -> None:
        if isinstance(value, str):
            if len(value) >= _SHORTEST:
                # As it is, and as JSON and tracebacks write it.
                self._seen |= {value, *(form(value)[1:-1] for form in (quoted, json.dumps, repr))}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self._remember(str(value))
        elif isinstance(value, dict):
            self._remember(list(value.values()))
        elif isinstance(value, list):
            for item in value:
                self._remember(item)

    def scrub(self, value: Any) -> Any:
        """Return *value* without the sensitive values this run has seen; its own keys stay."""
        if not self._seen:
            return value
        if isinstance(value, dict):
            return {key: self._scrubbed(item) for key, item in value.items()}
        return self._scrubbed(value)

    def _scrubbed(self, value: Any) -> Any:
        if isinstance(value, str):
            for text in sorted(self._seen, key=len, reverse=True):
                value = value.replace(text, HIDDEN)
            return value
        if isinstance(value, dict):
            return {self._scrubbed(key): self._scrubbed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._scrubbed(item) for item in value]
        if isinstance(value, int | float) and str(value) in self._seen:
            return HIDDEN
        return value
