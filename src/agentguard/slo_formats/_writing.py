"""Writes plain values as YAML that every reader reads the same, numbers digit by digit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLAIN: Final = re.compile(
    r"[A-Za-z_](?:(?:[\w./ -]|:(?=\w))*[\w./-])?|[1-9][0-9]*[smhd]", re.ASCII
)
_QUOTED: Final = re.compile(r'(?=.*")[ !-&(-\[\]-~]+')  # no need for a backslash
_BLOCK: Final = re.compile(r"[!-~][ -~]*(?:\n *[!-~][ -~]*)+", re.ASCII)
_ODD: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")
_RESERVED: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_KEY: Final = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)


def yaml(value: Mapping[str, Any]) -> str:
    """Return *value* as a YAML document; texts of more than one line as blocks."""
    return "\n".join(_lines(value)) + "\n"


def number(value: Decimal) -> str:
    """Return a number without exponent and without zeros at its end."""
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def _lines(value: Mapping[str, Any] | Sequence[Any]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entry(f"{_key(key)}:", item)
        return
    for item in value:
        yield from _entry("-", item) if _is_scalar(item) else _hung(_lines(item))


def _hung(lines: Iterator[str]) -> Iterator[str]:
    yield f"- {next(lines)}"
    yield from (f"  {line}" for line in lines)


def _entry(head: str, value: Any) -> Iterator[str]:
    if isinstance(value, str) and _BLOCK.fullmatch(value):
        yield f"{head} |-"
        yield from (f"  {line}" for line in value.split("\n"))
    elif _is_scalar(value):
        yield f"{head} {_scalar(value)}"
    else:
        yield head
        yield from (f"  {line}" for line in _lines(value))


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, bool, int, Decimal)) or not value


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value if _is_plain(value) else _quoted(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        return number(value)
    return str(value) if isinstance(value, int) else ("{}" if isinstance(value, Mapping) else "[]")


def _quoted(text: str) -> str:
    """Quote as JSON does, and what YAML takes for the end of a line as well."""
    if _QUOTED.fullmatch(text):
        return f"'{text}'"
    quoted = json.dumps(text, ensure_ascii=False)
    return _ODD.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def _key(key: str) -> str:
    return key if _KEY.fullmatch(key) and not _is_reserved(key) else _quoted(key)


def _is_plain(text: str) -> bool:
    return _PLAIN.fullmatch(text) is not None and not _is_reserved(text)


def _is_reserved(text: str) -> bool:
    return text.lower() in _RESERVED
