"""Reads YAML as other programs do."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML


def documents(text: str) -> list[Any]:
    """Return the documents of a file."""
    reader: Any = YAML(typ="safe", pure=True)
    return list(reader.load_all(text))


def document(text: str) -> Any:
    """Return the only document of a file."""
    (found,) = documents(text)
    return found
