"""Reads one strict YAML 1.2 document into plain values that remember their lines.

Only the parser of ruamel.yaml is used: values are resolved here, from the source text, so that
money never passes through a float and nothing that a tag could name is ever built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 16
_SHOWN: Final = 64
_MAX_DIGITS: Final = 40
_MAX_EXPONENT: Final = 30

Scalar: TypeAlias = bool | int | Decimal | str | None
KeyPath: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands.

    Attributes:
        value: a scalar, nodes by key, or a tuple of nodes.
        line: where its key stands or, without a key, it itself; counted from 1.
        start: the character at which its key, or it itself, begins.
        end: the character behind it.
    """

    value: Scalar | dict[str, Node] | tuple[Node, ...]
    line: int
    start: int
    end: int

    @property
    def fields(self) -> dict[str, Node]:
        """Return its nodes by key; none if it is no mapping."""
        return self.value if isinstance(self.value, dict) else {}


def plain(node: Node) -> Any:
    """Return the value without places; lists become tuples."""
    if isinstance(node.value, dict):
        return {key: plain(item) for key, item in node.value.items()}
    if isinstance(node.value, tuple):
        return tuple(map(plain, node.value))
    return node.value


def places(node: Node, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Node]]:
    """Yield every node with the keys that lead to it, the root first."""
    yield path, node
    items = node.value if isinstance(node.value, tuple) else ()
    for key, item in [*node.fields.items(), *((str(i), n) for i, n in enumerate(items))]:
        yield from places(item, (*path, key))


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds.

    Attributes:
        source: the file's name, as errors show it.
        text: as it was read, without a byte order mark.
        root: its only node at the top.
    """

    source: str
    text: str
    root: Node

    def snippet(self, node: Node, indent: str) -> str:
        """Return the lines of *node* as they were written, moved to *indent*."""
        column = node.start - self.text.rfind("\n", 0, node.start) - 1
        first, *rest = self.text[node.start : node.end].rstrip().splitlines() or [""]
        moved = [line[min(column, len(line) - len(line.lstrip(" "))) :] for line in rest]
        return "\n".join(f"{indent}{line}" if line else "" for line in [first, *moved])


def read(data: str | bytes, source: str) -> Document:
    """Read *data*; errors name *source* and the line.

    Raises:
        ConfigurationError: if it is not exactly one document of plain keys and values.
    """
    text = _text(data, source)
    return Document(source, text, _Reader(text, source).document())


def refuse(source: str, line: int, sentence: str) -> NoReturn:
    """Raise the error that names *source* and *line* in the form editors can jump to."""
    raise ConfigurationError(f"{source}:{line}: {sentence}")


def _text(data: str | bytes, source: str) -> str:
    try:
        raw = data.encode() if isinstance(data, str) else data
        if len(raw) > MAX_BYTES:
            limit = f"{MAX_BYTES // 1024} KB"
            refuse(source, 1, f"the file is larger than {limit}; no configuration needs that")
        return raw.decode("utf-8-sig")
    except UnicodeEncodeError as error:
        line, wrong = str(data).count("\n", 0, error.start) + 1, "half a character"
    except UnicodeDecodeError as error:
        line, wrong = error.object.count(b"\n", 0, error.start) + 1, "a byte"
    refuse(source, line, f"there is {wrong} that is not UTF-8; save the file as UTF-8")


class _Reader:
    """Builds nodes from the parser's events, one document, no anchors, no tags."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.events = self._parse()

    def document(self) -> Node:
        next(self.events)  # the stream begins
        start = next(self.events)
        if _name(start) == "StreamEnd":
            self._refuse(start, "the file is empty; write agent_run: and its keys")
        if start.tags or start.version not in (None, (1, 2)):
            self._refuse(start, "remove the % lines above; the file is read as YAML 1.2")
        node = self._node(next(self.events), 1)
        next(self.events)  # the document ends
        after = next(self.events)
        if _name(after) != "StreamEnd":
            self._refuse(after, "a second document begins here; keep one document a file")
        return node

    def _parse(self) -> Iterator[Any]:
        """Yield events; whatever the parser raises becomes one sentence with a line."""
        from ruamel.yaml import YAML  # loaded only when a file is read

        line = 1
        try:
            parser: Any = YAML(typ="safe", pure=True)
            for event in parser.parse(self.text):
                line = event.start_mark.line + 1
                yield event
        except Exception as error:  # noqa: BLE001 - hostile text also finds the parser's own bugs
            problem = error
        else:
            return
        refuse(self.source, *self._explained(problem, line))

    def _explained(self, error: Exception, line: int) -> tuple[int, str]:
        position = getattr(error, "position", None)
        if isinstance(position, int):  # the reader found a character
            line = self.text.count("\n", 0, position) + 1
            return line, "there is a control character; remove it"
        mark = getattr(error, "problem_mark", None)
        line = line if mark is None else mark.line + 1
        problem = getattr(error, "problem", None) or "a character or number cannot be read"
        if "'\\t'" in problem:
            return line, "a tab stands where YAML wants spaces; indent with spaces"
        return line, f"this is not YAML ({problem}); check indentation, colons and quotes"

    def _node(self, event: Any, depth: int) -> Node:
        kind = _name(event)
        self._check(event, kind, depth)
        if kind == "Scalar":
            return self._scalar(event)
        return (self._mapping if kind == "MappingStart" else self._sequence)(event, depth)

    def _check(self, event: Any, kind: str, depth: int) -> None:
        if kind == "Alias":
            self._refuse(
                event, f"the alias *{_short(event.anchor)} is not allowed; write the value out"
            )
        if event.anchor is not None:
            self._refuse(event, f"the anchor &{_short(event.anchor)} is not allowed; remove it")
        if event.tag is not None:
            self._refuse(event, f"the tag {_short(event.tag)} is not allowed; remove it")
        if depth > MAX_DEPTH:
            self._refuse(event, f"this is nested deeper than {MAX_DEPTH} levels; flatten it")

    def _scalar(self, event: Any) -> Node:
        mark = event.start_mark
        if _UNWANTED.search(event.value):
            self._refuse(event, "the text contains a control or half character; remove it")
        try:
            value = _resolved(event.value) if event.implicit[0] else event.value
        except ValueError as error:
            self._refuse(event, str(error))
        return Node(value, mark.line + 1, mark.index, event.end_mark.index)

    def _sequence(self, start: Any, depth: int) -> Node:
        items: list[Node] = []
        while _name(event := next(self.events)) != "SequenceEnd":
            items.append(self._node(event, depth + 1))
        return self._collection(start, event, tuple(items), items)

    def _mapping(self, start: Any, depth: int) -> Node:
        found: dict[str, Node] = {}
        while _name(event := next(self.events)) != "MappingEnd":
            key = self._key(event, found, depth)
            value = self._node(next(self.events), depth + 1)
            mark = event.start_mark
            found[key] = Node(value.value, mark.line + 1, mark.index, value.end)
        return self._collection(start, event, found, [*found.values()])

    def _key(self, event: Any, found: dict[str, Node], depth: int) -> str:
        if _name(event) not in ("Scalar", "Alias"):
            self._refuse(event, "a key must be a plain text; lists and mappings cannot be keys")
        self._check(event, _name(event), depth)
        self._scalar(event)  # for its checks; keys are texts, also those that look like numbers
        key = str(event.value)
        if key in found:
            first = found[key].line
            self._refuse(event, f"{_short(key)!r} stands twice, here and in line {first}; keep one")
        return key

    def _collection(self, start: Any, end: Any, value: Any, items: list[Node]) -> Node:
        # A block ends where the next token begins; comments between them belong to neither.
        flow = end.end_mark.index > end.start_mark.index
        stop = end.end_mark.index if flow or not items else items[-1].end
        return Node(value, start.start_mark.line + 1, start.start_mark.index, stop)

    def _refuse(self, event: Any, sentence: str) -> NoReturn:
        refuse(self.source, event.start_mark.line + 1, sentence)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _name(event: Any) -> str:
    return type(event).__name__.removesuffix("Event")


_UNWANTED: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _number(text: str) -> Decimal:
    value = Decimal(text)
    if len(text) > _MAX_DIGITS or abs(value.adjusted()) > _MAX_EXPONENT:
        raise ValueError(_OUT_OF_RANGE)
    return value


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(_OUT_OF_RANGE)
    return int(text, 0 if text[1:2] in ("o", "x") else 10)


_OUT_OF_RANGE: Final = (
    f"the number has more than {_MAX_DIGITS} digits or too large an exponent; write a usual one"
)
_RESOLVERS: Final[tuple[tuple[re.Pattern[str], Callable[[str], Scalar]], ...]] = (
    (re.compile(r"(?:~|null|Null|NULL)?"), lambda _: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text[0] in "tT"),
    (re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), _whole),
    (re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"), _number),
    (
        re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
        lambda text: Decimal(text.replace(".", "")),
    ),
)


def _resolved(text: str) -> Scalar:
    """Return a plain scalar by the core schema of YAML 1.2.

    Raises:
        ValueError: if it is a number that nobody means.
    """
    for pattern, convert in _RESOLVERS:
        if pattern.fullmatch(text):
            return convert(text)
    return text
