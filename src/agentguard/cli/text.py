"""Values as people read them; whatever comes from a store is hostile and cannot steer a terminal."""

from __future__ import annotations

import datetime as dt
import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

_ASCII = re.compile(r"[ -~]*")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
"""Controls, formats (bidi, zero width, tags), surrogates, unassigned, and blanks but the space."""
_LOOKS_EMPTY = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, range(0xFE00, 0xFE10)))
    + "".join(map(chr, range(0xE0100, 0xE01F0)))
)
"""Letters and marks that draw nothing: fillers and variation selectors."""
LONGEST = 4_000
"""More characters of one value are shown by `-o json` only."""
SHORT = 12
"""So many characters of an id or a hash are shown where the beginning is enough."""


def breadth(text: str) -> int:
    """Return how many cells of a terminal *text* takes."""
    if text.isascii():
        return len(text)
    return sum(_cells(char) for char in text)


def _cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def escaped(text: str) -> str:
    """Return *text* with everything escaped that a reader would not see as itself."""
    if _ASCII.fullmatch(text):
        return text
    return "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    if char == " " or (unicodedata.category(char) not in _UNSEEN and char not in _LOOKS_EMPTY):
        return char
    return char.encode("unicode_escape", "surrogatepass").decode()


def value(thing: Any) -> str:
    """Return a JSON value on one line, as it is, so that "75" and 75 differ."""
    return capped(escaped(json.dumps(thing, ensure_ascii=False, sort_keys=True)))


def capped(text: str, longest: int = LONGEST) -> str:
    """Return *text*, saying so where it is cut."""
    more = len(text) - longest
    return text if more <= 0 else f"{text[:longest]} … {more} more characters, see -o json"


def arguments(values: Any) -> str:
    """Return a call's arguments as `name=value name=value`."""
    if not isinstance(values, dict):
        return "" if values is None else value(values)
    return " ".join(f"{escaped(str(name))}={value(item)}" for name, item in values.items())


def result(kept: Any) -> str:
    """Return a stored result; the letter before its JSON says how it was written."""
    return value(plain_result(kept))


def plain_result(kept: Any) -> Any:
    """Return a stored result as plain JSON types; what is no JSON stays a text."""
    if not isinstance(kept, str):
        return kept
    try:
        return _untagged(json.loads(kept[1:]))
    except ValueError:
        return kept


def _untagged(thing: Any) -> Any:
    if isinstance(thing, list):
        return [_untagged(item) for item in thing]
    if not isinstance(thing, dict):
        return thing
    if set(thing) == {"$agentguard", "value"}:
        return _untagged(thing["value"])
    return {name: _untagged(item) for name, item in thing.items()}


def money(amount: Decimal | None) -> str:
    """Return US dollars; None is a price nobody knows."""
    return "unknown" if amount is None else f"${amount:f}"


def short(name: str | None) -> str:
    """Return the beginning of an id or a hash; commands take beginnings."""
    if not name:
        return "-"
    own = name.find("/") + 1 if name.startswith("comp/") else 0  # an undo has its effect's id in it
    return escaped(name[: own + SHORT])


def instant(at: dt.datetime | None) -> str:
    """Return a moment in UTC to the second."""
    return "-" if at is None else f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def ago(at: dt.datetime | None, now: dt.datetime) -> str:
    """Return how long ago, or in how long, *at* is, in its largest unit."""
    if at is None:
        return "-"
    gap = (now - at).total_seconds()
    size, unit = next((u for u in _UNITS if u[0] <= abs(gap)), (1, "s"))
    text = f"{abs(gap) // size:.0f} {unit}"
    return f"{text} ago" if gap >= 0 else f"in {text}"


def span(seconds: float) -> str:
    """Return a duration in the two largest units that matter."""
    if seconds < 0.001:  # noqa: PLR2004 - a millisecond
        return f"{seconds * 1_000_000:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    if seconds < 10:  # noqa: PLR2004 - tenths matter below ten
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for index, (size, unit) in enumerate(_UNITS):
        if whole >= size:
            rest = whole % size
            below, name = _UNITS[index + 1] if index + 1 < len(_UNITS) else (1, "s")
            more = f" {rest // below} {name}" if rest >= below else ""
            return f"{whole // size} {unit}{more}"
    return f"{whole} s"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: 1 step, 2 steps."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def words(state: str) -> str:
    """Return a state's name as words."""
    return escaped(state.replace("_", " "))


def quoted(text: str) -> str:
    """Return what a person wrote, in quotes, on one line."""
    return f'"{capped(escaped(text), 500)}"'


def actor(name: str) -> str:
    """Return who an event names: `agent:support` is the agent support."""
    return escaped(name.partition(":")[2] or name)


def person(who: str, roles: Mapping[str, Any] | tuple[str, ...] = ()) -> str:
    """Return a person with the roles they came with."""
    return escaped(who) + (f" ({escaped(', '.join(roles))})" if roles else "")
