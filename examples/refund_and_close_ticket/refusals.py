"""How a service says no, and how it reads what it is given: strictly, and in one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from http import HTTPStatus
from typing import Self

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
AMOUNT = re.compile(r"(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,2})?")


class Refusal(Exception):
    """A request that is answered with a status, a code for programs and a sentence for people."""

    def __init__(
        self, status: int, code: str, sentence: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})

    @classmethod
    def bad(cls, sentence: str) -> Self:
        """Make the refusal of a request that can never be right."""
        return cls(HTTPStatus.BAD_REQUEST, "bad_request", sentence)

    @classmethod
    def unknown(cls, what: str) -> Self:
        """Make the refusal of a request about something that is not there."""
        return cls(HTTPStatus.NOT_FOUND, "not_found", f"There is no {what}.")


def read_json(content: bytes) -> object:
    """Parse JSON the strict way.

    Raises:
        Refusal: not UTF-8, not JSON, a member named twice, NaN or Infinity, half a character.
    """
    try:
        value = json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate shows itself here
    except UnicodeError:
        raise Refusal.bad("The JSON is not valid UTF-8 text.") from None
    except (ValueError, RecursionError):
        # The parser's own words name offsets and limits of Python: nothing for a caller.
        raise Refusal.bad("The content is not valid JSON.") from None
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise Refusal.bad("The JSON names a member twice.")
    return members


def _no_number(name: str) -> object:
    raise Refusal.bad(f"{name} is not a JSON number.")


def read_fields(content: bytes) -> dict[str, object]:
    """Parse a JSON object; nothing at all counts as an empty one."""
    value = read_json(content) if content else {}
    if not isinstance(value, dict):
        raise Refusal.bad("The JSON must be an object.")
    return value


def only(fields: Mapping[str, object], *required: str, optional: tuple[str, ...] = ()) -> None:
    """Refuse *fields* unless they are the *required* ones, and perhaps *optional* ones."""
    if missing := [name for name in required if name not in fields]:
        raise Refusal.bad(f"{missing[0]} is missing.")
    if unknown := sorted(set(fields) - {*required, *optional}):
        expected = ", ".join((*required, *optional)) or "none"
        raise Refusal.bad(f"There is no field {_short(unknown[0])}; the fields are: {expected}.")


def identifier(fields: Mapping[str, object], name: str) -> str:
    """Return a field that names something."""
    value = fields[name]
    if not isinstance(value, str) or not IDENTIFIER.fullmatch(value):
        raise Refusal.bad(f"{name} must be 1 to 64 letters, digits or any of _ . : - in a string.")
    return value


def amount(fields: Mapping[str, object], name: str) -> Decimal:
    """Return a field that is an amount of money, always with two places.

    A JSON number would pass through binary floating point somewhere, so only strings will do.
    """
    value = fields[name]
    if not isinstance(value, str) or not AMOUNT.fullmatch(value) or not Decimal(value):
        raise Refusal.bad(f'{name} must be a positive decimal in a string, such as "19.99".')
    return Decimal(value).quantize(Decimal("0.01"))


def text(fields: Mapping[str, object], name: str) -> str:
    """Return a field that people will read."""
    value = fields[name]
    if not isinstance(value, str) or not value.strip():
        raise Refusal.bad(f"{name} must be a string with something in it.")
    return value


def _short(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:40]}…")
