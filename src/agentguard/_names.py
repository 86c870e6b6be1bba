"""Names of models: the same model goes by many, and an alias is no second opinion."""

from __future__ import annotations

import re
import unicodedata

_IDLE_TAG = re.compile(r"\d+|latest|free|beta|online|nitro|extended|thinking")
"""After a colon these name no other model."""
_TAG = re.compile(r"\d.*|instruct|chat|text|code|base|vision|tools|")
"""After a colon this alone is no model's name, as in llama3:8b."""
_VENDORS = re.compile(r"^(?:[a-z]+\.)+(?=[a-z])")
"""As Bedrock writes them: `us.anthropic.` before the model's own name."""
_SNAPSHOT = re.compile(
    r"(?:[-@](?:\d{4}-?\d{2}-?\d{2}|\d{4}|\d{3}|latest|preview))+(?:-v\d+)?$|@[\w.-]+$"
)


def forms(model: str) -> frozenset[str]:
    """Return the names by which *model* may be known: without provider, tag and date."""
    text = unicodedata.normalize("NFKC", model).casefold().strip()
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    whole = re.sub(r"[\s_]+", "-", text).rpartition("/")[2]
    parts = whole.split(":")
    while len(parts) > 1 and _IDLE_TAG.fullmatch(parts[-1]):
        parts.pop()
    found = [":".join(parts[first:]) for first in range(len(parts))]
    named = [found[0], *(name for name in found[1:] if not _TAG.fullmatch(name))]
    return frozenset(_bare(name) for name in named)


def _bare(name: str) -> str:
    without_vendor = _VENDORS.sub("", name)
    return _SNAPSHOT.sub("", without_vendor) or without_vendor


def same_model(one: str, other: str) -> bool:
    """Return whether two ids name one model, as far as ids can tell."""
    return bool(forms(one) & forms(other))
