"""Results as JSON and back, exactly; what would not come back as itself is not stored."""

from __future__ import annotations

import base64
import datetime as dt
import json
import uuid
from decimal import Decimal
from typing import Any

from .canonical import loads

MAX_RESULT_BYTES = 256 * 1024
"""Larger results are not kept; their effect is, with a digest."""

_TAG = "$agentguard"


class NotStorable(ValueError):
    """The value cannot be written as JSON and read back as itself."""


def limited(text: str) -> str:
    """Return *text* if the record may keep it.

    Raises:
        NotStorable: it is too large.
    """
    if len(text) > MAX_RESULT_BYTES // 4 and len(text.encode()) > MAX_RESULT_BYTES:
        msg = f"it has more than {MAX_RESULT_BYTES} bytes"
        raise NotStorable(msg)
    return text


def encode(value: Any) -> bytes:
    """Return JSON bytes from which `decode` makes an equal value of the same type.

    Raises:
        NotStorable: if it cannot.
    """
    try:
        return json.dumps(_tag(value), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise NotStorable(str(error)) from error


def decode(data: bytes | str) -> Any:
    """Return the value that `encode` was given."""
    return _untag(loads(data))


def _tag(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_tag(item) for item in value]
    if kind is dict and all(type(key) is str for key in value):
        tagged = {key: _tag(item) for key, item in value.items()}
        return {_TAG: "dict", "value": tagged} if _TAG in value else tagged
    for name, (of, write, _) in _KINDS.items():
        if kind is of:
            return {_TAG: name, "value": write(value)}
    msg = f"a {kind.__name__} has no JSON that comes back as itself; annotate its type"
    raise NotStorable(msg)


def _untag(value: Any) -> Any:
    if isinstance(value, list):
        return [_untag(item) for item in value]
    if not isinstance(value, dict):
        return value
    name = value.get(_TAG)
    if name is None:
        return {key: _untag(item) for key, item in value.items()}
    if name == "dict":
        return {key: _untag(item) for key, item in value["value"].items()}
    return _KINDS[name][2](value["value"])


def _tag_all(values: Any) -> list[Any]:
    return [_tag(item) for item in values]


_KINDS: dict[str, tuple[type, Any, Any]] = {
    "tuple": (tuple, _tag_all, lambda v: tuple(_untag(item) for item in v)),
    "set": (set, lambda v: _tag_all(sorted(v, key=repr)), lambda v: {_untag(item) for item in v}),
    "items": (dict, lambda v: _tag_all(v.items()), lambda v: dict(_untag(item) for item in v)),
    "decimal": (Decimal, str, Decimal),
    "bytes": (bytes, lambda v: base64.b64encode(v).decode(), base64.b64decode),
    "datetime": (dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    "date": (dt.date, dt.date.isoformat, dt.date.fromisoformat),
    "uuid": (uuid.UUID, str, uuid.UUID),
}
