"""Holds a file against its keys, and says of whatever does not fit what was meant."""

from __future__ import annotations

import re
from dataclasses import replace
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union, get_args, get_origin

from pydantic import ValidationError

from . import _yaml
from ._key_types import LOOKS, OVER
from ._keys import AgentRun, File, Logging
from ._keys_routing import Routing
from .errors import ConfigurationError
from .expressions import suggestion

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from ._yaml import Document, KeyPath, Node

_TOP: Final = "agent_run"
_SHOWN_PROBLEMS: Final = 10


def checked(document: Document) -> AgentRun:
    """Return what *document* holds under `agent_run`.

    Raises:
        ConfigurationError: with a line and a sentence for each thing that would not be obeyed.
    """
    root, source = document.root, document.source
    if not root.fields:
        sentence = "the file must hold agent_run: with keys beneath it, and nothing else"
        _yaml.refuse(source, root.line, sentence)
    _check_nesting(document)
    nodes = dict(_yaml.places(root))
    _refuse_empty(source, nodes)
    try:
        return File.model_validate(_yaml.plain(root)).agent_run
    except ValidationError as error:
        found = _told(error.errors(include_url=False))
        problems = [_problem(detail, nodes) for detail in found]
    raise _together(source, problems)


# Problems: each is a line and a sentence that says what to change.

_Problem: TypeAlias = tuple[int, str]

_UNREAD: Final = "is planned, but this version does not read it yet; remove it"
_FUNCTION: Final = "is a function, which a file cannot hold; decorate or protect the tool in Python"
_NOT_HERE: Final = {
    **dict.fromkeys(("redaction", "prompts"), _UNREAD),
    **dict.fromkeys(("reconcile", "fails_when", "verified_by", "compensated_by"), _FUNCTION),
    **dict.fromkeys(("evidence", "preview"), _FUNCTION),
}
_SENTENCES: Final = {
    "bool_type": "must be true or false",
    "dict_type": "must hold keys beneath it",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number without quotes, such as 10",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "missing": "is missing; add it",
    "model_type": "must hold keys beneath it",
    "string_pattern_mismatch": "must be {looks}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": "must be a text; put it in quotes",
    "tuple_type": "must be a list, such as [a, b]",
    "value_error": "{error}",
}


def _refuse_empty(source: str, nodes: Mapping[KeyPath, Node]) -> None:
    problems = [
        (node.line, f"{_dotted(path)} is empty; give it a value or remove it")
        for path, node in nodes.items()
        if node.value is None
    ]
    if problems:
        raise _together(source, problems)


def _together(source: str, problems: list[_Problem]) -> ConfigurationError:
    shown = [f"{source}:{line}: {sentence}" for line, sentence in sorted(problems)]
    if len(shown) > _SHOWN_PROBLEMS:
        shown[_SHOWN_PROBLEMS:] = [f"… and {len(shown) - _SHOWN_PROBLEMS} more"]
    return ConfigurationError("\n".join(shown))


def _told(details: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Leave out that a value is not `off` where its keys were read and are told about."""
    for detail in details:
        *parent, choice = detail["loc"]
        below = [d for d in details if len(d["loc"]) > len(detail["loc"])]
        is_key_told = any([*d["loc"][: len(parent)]] == parent for d in below)
        if not (str(choice).startswith("literal[") and is_key_told):
            yield detail


def _problem(detail: Mapping[str, Any], nodes: Mapping[KeyPath, Node]) -> _Problem:
    kind: str = detail["type"]
    path = _placed(tuple(map(str, detail["loc"])), nodes, kind)
    if path[-1] == "[key]":
        path = path[:-1]
        return nodes[path].line, _odd_key(path, detail)
    # What is missing has no line of its own: its parent's is named.
    line = (nodes.get(path) or nodes[path[:-1]]).line
    if kind == "extra_forbidden":
        return line, _unknown_key(path)
    facts = {**detail.get("ctx", {}), "looks": LOOKS.get(detail.get("ctx", {}).get("pattern", ""))}
    sentence = _SENTENCES[kind].format(**facts) if kind in _SENTENCES else detail["msg"]
    return line, f"{_dotted(path)} {sentence}"


def _placed(path: KeyPath, nodes: Mapping[KeyPath, Node], kind: str) -> KeyPath:
    """Leave out the names of types that a choice between two of them puts into *path*."""
    kept: KeyPath = ()
    for place, key in enumerate(path, 1):
        is_there = (*kept, key) in nodes or key == "[key]"
        if is_there or (place == len(path) and kind == "missing"):
            kept = (*kept, key)
    return kept


def _odd_key(path: KeyPath, detail: Mapping[str, Any]) -> str:
    if path[1:2] == ("approvals",):
        mend = f"; did you mean '{path[-1]}{OVER}'?" if path[-1].isidentifier() else ""
        return f"{_dotted(path)} must be a threshold such as refund_usd_over: 50{mend}"
    return f"{_dotted(path)} must be {LOOKS.get(detail['ctx'].get('pattern'), 'a shorter name')}"


def _unknown_key(path: KeyPath) -> str:
    if path[-1] in _NOT_HERE:
        return f"{_dotted(path)} {_NOT_HERE[path[-1]]}"
    known = _known_keys(path[:-1])
    mend = suggestion(path[-1], known) or f"; known here: {', '.join(known)}"
    return f"{_dotted(path)} is not a known key{mend}"


def _known_keys(path: KeyPath) -> list[str]:
    kind: Any = File
    for key in path:
        if hasattr(kind, "model_fields"):
            kind = kind.model_fields[key].annotation
            if get_origin(kind) in (Union, UnionType):  # the keys of its model are meant
                parts = get_args(kind)
                kind = next((part for part in parts if hasattr(part, "model_fields")), parts[0])
        else:  # a mapping by names that the user chose, or a list
            kind = [part for part in get_args(kind) if part is not Ellipsis][-1]
    return [*kind.model_fields]


def _dotted(path: KeyPath) -> str:
    """Return the key as in `Settings.lines`; odd characters are escaped."""
    shown = path[1:] if path[:1] == ("agent_run",) and path[1:] else path
    return ".".join(key if _TAME.fullmatch(key) else repr(key[:64]) for key in shown)


_TAME: Final = re.compile(r"[\w-]{1,64}")


# The article's page has lost the indentation of its example; whoever copies it gets it back.

_SECTIONS: Final[Mapping[str, Collection[str]]] = {
    "routing": Routing.model_fields,
    "approvals": (),
    "logging": Logging.model_fields,
}


def _check_nesting(document: Document) -> None:
    stray = next(_strays(document.root), None)
    if stray is None:
        return
    key, node, parent = stray
    block = _mended(document)
    mend = f"write it so:\n\n{block}\n" if block else f"indent it beneath {parent}:"
    sentence = f"the nesting is lost, {_dotted((key,))} belongs under {parent}; {mend}"
    _yaml.refuse(document.source, node.line, sentence)


def _strays(root: Node) -> Iterator[tuple[str, Node, str]]:
    """Yield known keys that stand one or two levels too high, and where they belong."""
    for key, node in root.fields.items():
        if key != _TOP and _home(key):
            yield key, node, _home(key)
    for key, node in _under_top(root).items():
        if _home(key) in _SECTIONS:
            yield key, node, _home(key)


def _under_top(root: Node) -> Mapping[str, Node]:
    return root.fields[_TOP].fields if _TOP in root.fields else {}


def _home(key: str) -> str:
    for section, keys in _SECTIONS.items():
        if key in keys or (section == "approvals" and key.endswith(OVER)):
            return section
    return _TOP if key in AgentRun.model_fields else ""


def _mended(document: Document) -> str:
    """Return the file as it was meant, in its own words; nothing if that cannot be told."""
    root = document.root
    loose = [item for item in root.fields.items() if item[0] != _TOP]
    tree: dict[str, Node] = {}
    for key, node in sorted([*loose, *_under_top(root).items()], key=lambda item: item[1].start):
        home = _home(key)
        if home in _SECTIONS:
            section = tree.get(home, replace(node, value=None))
            tree[home] = replace(section, value={**section.fields, key: node})
        else:
            tree[key] = node
    block = "\n".join([f"{_TOP}:", *_lines(document, tree)])
    return block if _keeps_all(block, root) else ""


def _lines(document: Document, tree: Mapping[str, Node]) -> Iterator[str]:
    for key, node in tree.items():
        if key in _SECTIONS and node.fields:
            yield f"  {key}:"
            yield from (document.snippet(child, "    ") for child in node.fields.values())
        else:
            yield document.snippet(node, "  ")


def _keeps_all(block: str, root: Node) -> bool:
    """Return whether *block* can be read and holds each of the root's values once."""
    try:
        read = _yaml.read(block, "").root
    except ConfigurationError:
        return False
    return _leaves(read) == _leaves(root)


def _leaves(root: Node) -> list[tuple[str, str]]:
    # Empty headers may go or stay, so they do not count; where a value stands does not either.
    return sorted(
        (path[-1], repr(node.value))
        for path, node in _yaml.places(root)
        if path and not isinstance(node.value, (dict, tuple, NoneType))
    )
