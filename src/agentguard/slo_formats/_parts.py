"""Walks a document of another tool; every refusal names file, line, document and field."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from .. import _yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._yaml import Node

_MARK: Final = re.compile(r"(?m)^---(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Part:
    """A value within a document.

    Attributes:
        file: as errors call it.
        document: what it is part of, such as `the SLO refunds`.
        path: its field, such as `spec.objectives.0.target`; empty for the document itself.
    """

    file: str
    document: str
    path: str
    node: Node

    def refuse(self, why: str) -> NoReturn:
        """Raise the sentence that names it; *why* goes on from its field."""
        where = f"{self.document}: {self.path}" if self.path else self.document
        _yaml.refuse(self.file, self.node.line, f"{where} {why}")

    def get(self, key: str) -> Part | None:
        """Return its field *key*, or None where it has none."""
        node = self.node.fields.get(key)
        path = f"{self.path}.{key}" if self.path else key
        return None if node is None else Part(self.file, self.document, path, node)

    def need(self, key: str, like: str) -> Part:
        """Return its field *key*; without one, ask for something *like* that."""
        found = self.get(key)
        if found is None:
            self.refuse(f"has no {key}; add it, such as {like}")
        return found

    def fields(self) -> Iterator[tuple[str, Part]]:
        """Yield its fields."""
        if self.node.value is not None and not isinstance(self.node.value, dict):
            self.refuse("must hold fields beneath it")
        for key in self.node.fields:
            yield key, self.need(key, "a value")

    def items(self) -> list[Part]:
        """Return its items."""
        if not isinstance(self.node.value, tuple):
            self.refuse("must be a list")
        path = f"{self.path}." if self.path else ""
        return [
            Part(self.file, self.document, f"{path}{place}", node)
            for place, node in enumerate(self.node.value)
        ]

    def only_item(self, mend: str) -> Part:
        """Return its one item; with others say *mend*."""
        items = self.items()
        if len(items) != 1:
            self.refuse(f"has {len(items)} items, and one can be carried over; {mend}")
        return items[0]

    def text(self) -> str:
        """Return its text; a number as it is usually written."""
        if not isinstance(self.node.value, str):
            self.refuse("must be a text; put it in quotes")
        return self.node.value

    def only(self, *known: str) -> None:
        """Refuse fields that are not among *known*: they could not be carried over."""
        for key, part in self.fields():
            if key not in known:
                part.refuse(f"cannot be carried over; known here: {', '.join(known)}")

    def must_be(self, value: object, why: str) -> None:
        """Refuse every other value."""
        if self.node.value != value or type(self.node.value) is not type(value):
            self.refuse(f"must be {_yaml_text(value)}: {why}")


def documents(text: str, file: str) -> list[Part]:
    """Return the documents of a file, each with the lines at which it stands."""
    found: list[Part] = []
    start = 0
    for mark in [*_MARK.finditer(text), None]:
        end = len(text) if mark is None else mark.start()
        if _says_something(text[start:end]):
            padded = "\n" * text.count("\n", 0, start) + text[start:end]
            number = f"document {len(found) + 1}"
            found.append(Part(file, number, "", _yaml.read(padded, file).root))
        start = end if mark is None else mark.end()
    return found


def _says_something(text: str) -> bool:
    lines = (line.strip() for line in text.splitlines())
    return any(line and not line.startswith("#") for line in lines)


def _yaml_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
