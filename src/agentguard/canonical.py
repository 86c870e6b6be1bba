"""One byte form for every value: canonical JSON (RFC 8785), hashes and idempotency keys."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import functools
import hashlib
import json
import math
import uuid
from decimal import Decimal
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from .errors import ContractViolation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_DEPTH = 64
"""Deeper values are refused; no tool argument needs more and the stack is finite."""
_SAFE_INTEGER = 2**53 - 1
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [first + second for first in _LETTERS for second in _LETTERS]
_MAX_EXPONENT = 1_000
_BLOCK = 64  # bytes that SHA-256 takes at once
_TEXT = frozenset({str})
_SIMPLE = frozenset({str, bool, type(None)})


def _encoder(default: Callable[[Any], Any] | None = None) -> Callable[[Any], str]:
    """Return an encoder with its C part made once; `encode` makes it anew for every value."""
    encoder = json.JSONEncoder(
        sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=default
    )
    if c_make_encoder is None:  # another Python than CPython
        return encoder.encode
    parts = c_make_encoder(
        None, encoder.default, encode_basestring, None, ":", ",", True, False, False
    )
    return lambda value: "".join(parts(value, 0))


_dumps = _encoder()
_row_dumps = _encoder(bytes.hex)


def jsonable(value: Any, where: str = "value", depth: int = 0) -> Any:
    """Return *value* as plain JSON types, the same for equal meanings.

    Money and big integers become strings, times become UTC text, sets become sorted lists.

    Raises:
        ContractViolation: for NaN, lone surrogates, huge numbers and types without a JSON form;
            the message names the place as *where*.
    """
    kind = type(value)
    if (kind is str and value.isascii()) or value is None or value is True or value is False:
        return value
    plain = _PLAIN.get(kind)
    if plain is not None:
        return plain(value, where, depth)
    for kind, convert in _CONVERSIONS:
        if isinstance(value, kind):
            return convert(value, where, depth)
    model_dump = getattr(value, "model_dump", None)
    if callable(model_dump) and not isinstance(value, type):
        return jsonable(model_dump(mode="python"), where, depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return jsonable(fields, where, depth + 1)
    raise ContractViolation(
        f"{where}: a {type(value).__name__} has no JSON form; pass plain data or a pydantic model"
    )


def _string(value: str, where: str, _depth: int) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ContractViolation(
                f"{where}: the text contains a lone surrogate, which no encoding can carry; remove it"
            ) from None
    return str(value)


def _integer(value: int, where: str, _depth: int) -> int | str:
    if -_SAFE_INTEGER <= value <= _SAFE_INTEGER:
        return int(value)
    try:
        return str(value)
    except ValueError:
        raise ContractViolation(
            f"{where}: the integer has too many digits; pass a smaller one"
        ) from None


def _float(value: float, where: str, _depth: int) -> float:
    if not math.isfinite(value):
        raise ContractViolation(f"{where}: {value} is not a JSON number; pass a finite one")
    return float(value)


def _decimal(value: Decimal, where: str, _depth: int) -> str:
    if not value.is_finite() or abs(value.adjusted()) > _MAX_EXPONENT:
        raise ContractViolation(f"{where}: the amount is not finite or far too large or small")
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"-0", ""} else text


def _mapping(value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
    _check_depth(where, depth)
    found: dict[str, Any] = {}
    for key, item in value.items():
        name = key if isinstance(key, str) else jsonable(key, where, depth + 1)
        if not isinstance(name, str):
            name = _dumps(name)
        found[_string(name, where, depth)] = jsonable(item, f"{where}.{name}"[:200], depth + 1)
    return found


def _sequence(value: Sequence[Any], where: str, depth: int) -> list[Any]:
    _check_depth(where, depth)
    return [jsonable(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]


def _set(value: Any, where: str, depth: int) -> list[Any]:
    return sorted(_sequence(list(value), where, depth), key=canonical)


def _check_depth(where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ContractViolation(f"{where[:60]}: nested deeper than {MAX_DEPTH} levels; flatten it")


def _datetime(value: dt.datetime, _where: str, _depth: int) -> str:
    if value.tzinfo is None:
        return value.isoformat()
    return value.astimezone(dt.UTC).isoformat()


_PLAIN: dict[type, Any] = {
    str: _string,
    int: _integer,
    float: _float,
    dict: _mapping,
    list: _sequence,
    tuple: _sequence,
    Decimal: _decimal,
}
_CONVERSIONS: tuple[tuple[Any, Any], ...] = (
    (enum.Enum, lambda v, w, d: jsonable(v.value, w, d + 1)),
    (str, _string),
    (int, _integer),
    (float, _float),
    (dict, _mapping),
    ((list, tuple), _sequence),
    ((set, frozenset), _set),
    (dt.datetime, _datetime),
    ((dt.date, dt.time), lambda v, _w, _d: v.isoformat()),
    (dt.timedelta, lambda v, _w, _d: str(v.total_seconds())),
    ((bytes, bytearray), lambda v, _w, _d: base64.b64encode(v).decode()),
    ((uuid.UUID, PurePath), lambda v, _w, _d: str(v)),
)


def canonical(value: Any) -> bytes:
    """Return the RFC 8785 (JCS) bytes of *value*, which must be plain JSON types.

    The standard library's encoder gives the same bytes as long as there is no float and every
    key is ASCII (floats print differently, and keys sort by UTF-16); it is 20 times faster, so
    the strict library is asked only for the rest.
    """
    if _is_simple(value):
        return _dumps(value).encode()
    import rfc8785

    return rfc8785.dumps(value)


def _is_simple(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        if not (_TEXT.issuperset(map(type, value)) and "".join(value).isascii()):
            return False
        items = value.values()
    elif kind is list:
        items = value
    else:
        return kind in _SIMPLE or (kind is int and -_SAFE_INTEGER <= value <= _SAFE_INTEGER)
    rest = [item for item in items if type(item) not in _SIMPLE]
    return all(map(_is_simple, rest))


def plain_text(value: Any) -> str:
    """Return JSON text of plain JSON types, with sorted keys.

    It is canonical where there is no float and every key is ASCII, as in all that agentguard
    itself puts into the record.
    """
    return _dumps(value)


quoted: Callable[[str], str] = encode_basestring
"""Return a text as a JSON string, as RFC 8785 writes it."""


def dumps(value: Any) -> str:
    """Return canonical JSON text of *value*, converting what has a JSON form."""
    return canonical(jsonable(value)).decode()


def loads(text: str | bytes) -> Any:
    """Parse JSON strictly: duplicate keys and NaN are refused.

    Raises:
        ValueError: with one sentence that says what is wrong.
    """
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            msg = f"the key {key!r} stands twice"
            raise ValueError(msg)
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def sha256(data: bytes) -> bytes:
    """Return the SHA-256 of *data*."""
    return hashlib.sha256(data).digest()


def keyed_hash(key: bytes, data: bytes) -> str:
    """Return HMAC-SHA-256 as hex; keyed, since plain hashes of small domains can be guessed."""
    keyed = _keyed(key)
    inner, outer = keyed[0].copy(), keyed[1].copy()
    inner.update(data)
    outer.update(inner.digest())
    digest: str = outer.hexdigest()
    return digest


@functools.lru_cache(maxsize=64)
def _keyed(key: bytes) -> tuple[Any, Any]:
    """Return both halves of an HMAC (RFC 2104) with the key in them: a copy costs a third."""
    block = (key if len(key) <= _BLOCK else sha256(key)).ljust(_BLOCK, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in block) for pad in (0x36, 0x5C))
    return hashlib.sha256(inner), hashlib.sha256(outer)


def effect_key(tenant: str, scope: str, tool: str, major: str, fields: Any) -> str:
    """Return the idempotency key of an effect: `ag1_` and 52 characters of base32.

    It fits every backend (64 ASCII characters at most), is the same for all attempts, and shows
    nothing of the business fields it is made of.
    """
    digest = sha256(canonical([tenant, scope, tool, major, fields]))
    return "ag1_" + base32(digest)[:52]


def base32(data: bytes) -> str:
    """Return RFC 4648 base32 in small letters, without padding."""
    number = int.from_bytes(data) << (-len(data) * 8) % 10
    pairs = -(-len(data) * 8 // 10)
    found = [_PAIRS[number >> 10 * i & 1023] for i in range(pairs - 1, -1, -1)]
    return "".join(found)[: -(-len(data) * 8 // 5)]


def seal(*values: str | int | bytes | None) -> bytes:
    """Return a digest of one row's values (SHA-256, 128 bits): a bit that flips on a disk shows.

    It is no signature: who may write rows can write seals.
    """
    return seal_of(_row_dumps(values))


def seal_of(text: str) -> bytes:
    """Return the seal of a row whose values are written as JSON text, without any space."""
    return hashlib.sha256(text.encode()).digest()[:16]
