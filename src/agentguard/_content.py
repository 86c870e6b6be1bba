"""One text for one content: equal for what is equal and of the same types, different for all else."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import uuid
from decimal import Decimal
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from .errors import ContractViolation

if TYPE_CHECKING:
    from collections.abc import Callable


def content(value: Any, where: str) -> bytes:
    """Return bytes that stand for *value*, types and the order of keys included.

    Raises:
        ContractViolation: its content cannot be told; the message names the place as *where*.
    """
    try:
        told = _told(value, where)
        return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
    except (RecursionError, ValueError) as error:
        why = (
            "it contains itself or is nested too deep"
            if isinstance(error, RecursionError)
            else error
        )
        raise ContractViolation(f"{where}: what it is made of cannot be told: {why}") from None


def _told(value: Any, where: str) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    tell = _TELL.get(kind)
    if tell is not None:
        return [kind.__name__, *tell(value, where)]
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, enum.Enum):
        return [name, value.name]
    if isinstance(value, PurePath):
        return [name, str(value)]
    fields = _fields(value)
    if fields is None:
        raise ContractViolation(
            f"{where}: the content of a {kind.__name__} cannot be told: pass plain data, or give"
            " key= with what it is made of"
        )
    return [name, *([n, _told(getattr(value, n), f"{where}.{n}")] for n in fields)]


def _fields(value: Any) -> list[str] | None:
    """Return the names of what a dataclass or a pydantic model holds."""
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    known = getattr(type(value), "model_fields", None)
    if not isinstance(known, dict):
        return None
    return [*known, *(getattr(value, "model_extra", None) or {})]


def _all(value: Any, where: str) -> list[Any]:
    return [_told(item, where) for item in value]


def _set(value: Any, where: str) -> list[Any]:
    return sorted(_all(value, where), key=json.dumps)


def _pairs(value: Any, where: str) -> list[Any]:
    return [[_told(key, where), _told(item, where)] for key, item in value.items()]


_TELL: dict[type, Callable[[Any, str], Any]] = {
    list: _all,
    tuple: _all,
    set: _set,
    frozenset: _set,
    dict: _pairs,
    float: lambda v, _: [repr(v)],
    Decimal: lambda v, _: [str(v)],
    bytes: lambda v, _: [v.hex()],
    bytearray: lambda v, _: [v.hex()],
    dt.datetime: lambda v, _: [v.isoformat(), repr(v.tzinfo), v.fold],
    dt.date: lambda v, _: [v.isoformat()],
    dt.time: lambda v, _: [v.isoformat(), repr(v.tzinfo), v.fold],
    dt.timedelta: lambda v, _: [v.days, v.seconds, v.microseconds],
    uuid.UUID: lambda v, _: [str(v)],
}
