"""Loops: calls that come again and again, as they were or in other words, and bring nothing new.

Theory of operation. Every call that ended is held against the one, two and three places before it:
whether it is the same call, and whether the same came of it. So a loop is a streak: of equal calls,
or of two or three that take turns. A call that would go on with a streak of *limit* rounds is not
started. Whatever is new breaks the streak: another call, a changed result, a new effect.

Two calls are the same if they differ in looks only: in case, white space, punctuation, quotes, the
order of keys, how a number is written, words that carry no meaning, or in a counter of retries.
Names, dates, pages, cursors and amounts are no looks.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .canonical import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .ledger.values import RunRef

REPEATS = 3
"""So often may the same call bring the same, where nobody says otherwise."""
OWN_REPEATS = 10
"""So often where each call is declared to be an effect of its own."""
_KEPT = 64
_PERIODS = (1, 2, 3)
_SHORTEST_ECHO, _LONGEST_ECHO = 3, 100_000
_LONGEST = 2_000
"""Longer texts are held against each other as they are."""

SAME, LOOKS, GROWN, REWORDED = "same call", "cosmetic changes", "growing retries", "no progress"
TURNS = "alternation"
_RANK = (SAME, LOOKS, GROWN, REWORDED)

Outcome = tuple[bool, Any]
"""Whether the call did what it should, and what it brought; equal for equal ends."""
Words = tuple[str, ...]


@dataclass(slots=True, eq=False)
class Past:
    """A call as it is held against others.

    Attributes:
        plain: its arguments, or None where only their hash is known.
        outcome: what came of it; None if nobody can compare that.
        ref: the runtime's id of the call; the same one is the same call, delivered again.
        key: the key of its effect, if it has one.
        own: each call of this tool is declared to be an effect of its own.
        turn: counts the answers of the model; what it asks for in one of them is no repeat.
        step: the step it took, once that is known.
    """

    tool: str
    payload_hash: str
    plain: Mapping[str, Any] | None
    effect: str = "read"
    ref: str | None = None
    outcome: Outcome | None = None
    key: str = ""
    own: bool = False
    turn: int = 0
    step: int | None = None
    _bare: dict[str, dict[str, Words]] = field(default_factory=dict, repr=False)

    def bare(self, name: str) -> dict[str, Words]:
        """Return what is left of one argument without its looks."""
        found = self._bare.get(name)
        if found is None:
            value = None if self.plain is None else self.plain.get(name)
            found = dict(_parts(name, value, asks=self.effect == "read"))
            self._bare[name] = found
        return found

    def brought(self, kept: str | None) -> None:
        """Remember a result, but for what it only echoes of the arguments."""
        self.outcome = None
        if kept is None:
            return
        if self.plain is not None and len(kept) <= _LONGEST_ECHO:
            for value in self.plain.values():
                if type(value) is str and len(value) >= _SHORTEST_ECHO:
                    kept = kept.replace(quoted(value)[1:-1], "\0")
        self.outcome = (True, hash(kept))

    def forget(self) -> None:
        """Let go of the arguments."""
        self.plain, self._bare = None, {}

    def like(self, earlier: Past) -> str | None:
        """Return how this call repeats the *earlier* one, or None if it is another."""
        if self.tool != earlier.tool:
            return None
        if self.payload_hash == earlier.payload_hash:
            return SAME
        if self.plain is None or earlier.plain is None:
            return None
        return _likeness(self, earlier, self.plain, earlier.plain)

    def ends_like(self, earlier: Past) -> bool:
        """Return whether the same came of both."""
        return self.outcome is not None and self.outcome == earlier.outcome


class Loop(NamedTuple):
    """A streak that the next call would go on with.

    Attributes:
        pattern: what kind of loop it is.
        calls: the calls of the streak, oldest first.
        rounds: how often they came.
    """

    pattern: str
    calls: tuple[Past, ...]
    rounds: int


class Streaks:
    """The last calls of a run, as one process saw them end.

    Without a lock: each change is one operation of a deque or a list, and two calls that end at
    the same moment have no order anyway.
    """

    __slots__ = ("_known", "_last", "_streaks")

    def __init__(self) -> None:
        self._last: deque[Past] = deque(maxlen=_KEPT)
        self._streaks: list[tuple[int, str]] = [(0, SAME)] * len(_PERIODS)
        self._known: dict[tuple[str, str], None] = {}

    def delivered(self, call: Past) -> bool:
        """Return whether the runtime delivers *call* once more, as after a crash."""
        return call.ref is not None and (call.ref, call.payload_hash) in self._known

    def beside(self, call: Past) -> bool:
        """Return whether the model asks for *call* in one answer with an equal one."""
        if not call.turn or call.ref is None:
            return False
        last = [self._last[-place] for place in _PERIODS if place <= len(self._last)]
        return any(call.turn == earlier.turn and call.like(earlier) for earlier in last)

    def found(self, call: Past, limit: int) -> Loop | None:
        """Return the loop that *call* would go on with, after *limit* rounds of it."""
        last = self._last
        for period in _PERIODS:
            length, pattern = self._streaks[period - 1]
            if length < period * (limit - 1) or len(last) < period:
                continue
            rounds = _rounds(limit, [call, *(last[-place] for place in range(1, period + 1))])
            likeness = call.like(last[-period]) if length >= period * (rounds - 1) else None
            if likeness is not None:
                told = _worse(pattern, likeness) if period == 1 else TURNS
                return Loop(told, tuple(last)[-period * rounds :], rounds)
        return None

    def ended(self, call: Past) -> None:
        """Take a call in that has ended."""
        last = self._last
        for period in _PERIODS:
            before = last[-period] if len(last) >= period else None
            likeness = call.like(before) if before and call.ends_like(before) else None
            length, pattern = self._streaks[period - 1]
            streak = (0, SAME) if likeness is None else (length + 1, _worse(pattern, likeness))
            self._streaks[period - 1] = streak
        last.append(call)
        if len(last) > _PERIODS[-1]:
            last[-_PERIODS[-1] - 1].forget()  # nothing is held against it any more
        self._remember(call)

    def broken(self) -> None:
        """Something came between that is no repeat of anything: a poll, which may be repeated."""
        self._streaks[:] = [(0, SAME)] * len(_PERIODS)
        self._last.clear()

    def _remember(self, call: Past) -> None:
        if call.ref is None:
            return
        self._known[call.ref, call.payload_hash] = None
        if len(self._known) > _KEPT:
            self._known.pop(next(iter(self._known)), None)

    def resumed(self, calls: Iterable[Past]) -> None:
        """Begin a part of the run that goes on after *calls*.

        Without the runtime's ids nobody can tell a call that is made again because the program
        was started again from one that is repeated: such calls are left out.
        """
        self.broken()
        keys: dict[tuple[str, str], str] = {}
        for call in calls:
            if call.ref is not None and not self.delivered(call):
                place = (call.tool, call.payload_hash)
                call.own |= keys.setdefault(place, call.key) != call.key
                self.ended(call)

    def past(self) -> list[Past]:
        """Return the calls that are known, oldest first."""
        return list(self._last)


_SHARED: weakref.WeakKeyDictionary[Any, dict[tuple[str, str], Streaks]] = (
    weakref.WeakKeyDictionary()
)
_RUNS = 256


def shared(store: Any, ref: RunRef) -> tuple[Streaks, bool]:
    """Return the streaks of a run that is entered around every call, and whether they were known.

    Only so many runs are remembered; of one that was forgotten, the record still tells.
    """
    runs = _SHARED.setdefault(store, {})
    place = (ref.tenant, ref.run_id)
    found = runs.pop(place, None)
    runs[place] = streaks = found or Streaks()
    if len(runs) > _RUNS:
        runs.pop(next(iter(runs)), None)
    return streaks, found is not None


_STARTED: weakref.WeakKeyDictionary[Any, dict[str, list[int]]] = weakref.WeakKeyDictionary()


def started_by(store: Any, tenant: str) -> list[int]:
    """Return the count of calls that this process has started for a tenant since its last retry."""
    return _STARTED.setdefault(store, {}).setdefault(tenant, [0])


def _rounds(limit: int, calls: list[Past]) -> int:
    """A new effect is progress, but not for ever where nothing else ever changes."""
    return max(limit, OWN_REPEATS) if any(call.own for call in calls) else limit


def _worse(one: str, other: str) -> str:
    return max(one, other, key=_RANK.index)


# Likeness.

_COUNTER = re.compile(
    r"(?:.*_)?(?:attempts?|retry|retries|tries)(?:_(?:no|nr|num|number|count|index))?"
    r"|(?:retry|attempt|try)(?:no|num|number|count)|(?:.*_)?timeout(?:_\w+)?",
    re.IGNORECASE,
)
"""Arguments that say how often or how long it was tried."""
_BREADTH = re.compile(
    r"limit|top_?k|(?:max|num|n)_(?:results|items|rows)|page_?size|per_page", re.IGNORECASE
)
"""Arguments of a read that say how much it may bring."""


def _likeness(
    call: Past, earlier: Past, mine: Mapping[str, Any], theirs: Mapping[str, Any]
) -> str | None:
    """Compare the arguments of two calls of one tool, up to what makes them two."""
    if _are_others(mine, theirs, call.effect):
        return None
    found = LOOKS
    for place, new, old in _changes(call, earlier, mine, theirs):
        if _is_effort(place, call.effect):
            how = GROWN if _grew(new, old) else None
        else:
            how = _wording(new, old, call, earlier) if found != REWORDED else None
        if how is None:
            return None
        found = _worse(found, how)
    return found


def _changes(
    call: Past, earlier: Past, mine: Mapping[str, Any], theirs: Mapping[str, Any]
) -> Iterator[tuple[str, Words | None, Words | None]]:
    """Yield what is not the same in two calls without its looks."""
    for name in mine if mine.keys() == theirs.keys() else mine.keys() | theirs.keys():
        given, before = mine.get(name), theirs.get(name)
        if given is before or (given == before and type(given) is type(before)):
            continue
        new, old = call.bare(name), earlier.bare(name)
        if new != old:
            for place in new if new.keys() == old.keys() else new.keys() | old.keys():
                if new.get(place) != old.get(place):
                    yield place, new.get(place), old.get(place)


_DIGITS = str.maketrans("123456789", "000000000")


def _are_others(mine: Mapping[str, Any], theirs: Mapping[str, Any], effect: str) -> bool:
    """Return whether two calls are seen to be two by the first argument that differs."""
    for name, given in mine.items():
        before = theirs.get(name)
        if given is not before and given != before:
            return _are_two(given, before) and not _is_effort(name, effect)
    return False


def _are_two(given: Any, before: Any) -> bool:
    """Return whether two values are seen to be two: whole numbers, or texts with other digits."""
    if type(given) is not type(before):
        return False
    if type(given) is int:
        return True
    return (
        type(given) is str
        and len(given) < _LONGEST
        and given.translate(_DIGITS) == before.translate(_DIGITS)
        and not _TRIES.search(given)
    )


@functools.lru_cache(maxsize=1024)
def _is_effort(name: str, effect: str) -> bool:
    name = name.rpartition(".")[2]
    return bool(_COUNTER.fullmatch(name) or (effect == "read" and _BREADTH.fullmatch(name)))


def _grew(new: Words | None, old: Words | None) -> bool:
    if new is None or old is None:
        return old is None
    try:
        return float(new[0]) > float(old[0])
    except (ValueError, IndexError):
        return False


def _wording(mine: Words | None, theirs: Words | None, call: Past, earlier: Past) -> str | None:
    """Compare two texts: words that are added, left out or in another order ask for the same.

    A word in place of another, or one with a number in it, asks for something else; and what a
    write has done with other words is something else.
    """
    done = call.effect != "read" and earlier.outcome is not None and earlier.outcome[0]
    if not mine or not theirs or done:
        return None
    new, old = set(mine), set(theirs)
    if not (new <= old or old <= new) or any(map(_DIGIT.search, new ^ old)):
        return None
    if len(mine) > len(theirs) and mine[: len(theirs)] == theirs:
        return GROWN
    return REWORDED if min(len(new), len(old)) > 1 else None


# Arguments without their looks.

_SMALL = (
    "a an the of for in on at and or is are was were be do does did has have it its this that what"
    " which how please kindly thanks me my i we our us you your can could would will about some any"
)
_WORDLESS = frozenset(_SMALL.split())
"""Words that carry no meaning in a question. `from`, `to`, `not` and their like do."""
_NUMBER = re.compile(r"[+-]?(?:0|[1-9]\d*|[1-9]\d{0,2}(?:,\d{3})+)(?:\.\d+)?")
_TRIES = re.compile(r"\b(?:attempt|retry|try)\s*(?:no\.?|number|#)?\s*\d+\b", re.IGNORECASE)
_OPENING = "\"'`([{<\u00ab\u201c\u201e\u2018*\u2013\u2014"
_CLOSING = "\"'`)]}>\u00bb\u201d\u2019*.,;:!?\u2026/\u2013\u2014"
_DIGIT = re.compile(r"\d")
_TURN = re.compile(r"[a-z][A-Z]")


def _parts(name: str, value: Any, *, asks: bool) -> Iterator[tuple[str, Words]]:
    """Yield the words of each part; only what *asks* can leave some of them out."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _parts(f"{name}.{key}", item, asks=asks)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _parts(f"{name}[{number}]", item, asks=asks)
    elif value is not None:
        yield name, _words(value, asks=asks)


def _words(value: Any, *, asks: bool) -> Words:
    if not isinstance(value, str):
        return (str(value).lower() if isinstance(value, bool) else _plain_number(repr(value)),)
    if len(value) > _LONGEST:
        return (value,)
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return (_plain_number(text),)
    text = text if text.isascii() else unicodedata.normalize("NFKC", text)
    tokens = text.split()
    if len(tokens) > 1:
        tokens = _TRIES.sub(" ", text).split()
    found = [word for token in tokens for word in _without_looks(token)]
    return tuple([w for w in found if w not in _WORDLESS] if asks else ()) or tuple(found)


def _without_looks(token: str) -> list[str]:
    """Return the words of a token without punctuation around them; of an identifier, as it is."""
    word = token.lstrip(_OPENING).rstrip(_CLOSING)
    if _DIGIT.search(word):
        if _NUMBER.fullmatch(word):
            return [_plain_number(word, short=True)]
        return [word.casefold() if word.isupper() or word.istitle() else word]
    if len(_TURN.findall(word)) > 1:  # such as a cursor: its case means something
        return [word]
    if word[:1] in ("-", "_") or ("-" not in word and "_" not in word):
        return [word.casefold()] if word else []
    return word.casefold().replace("_", " ").replace("-", " ").split()


def _plain_number(text: str, *, short: bool = False) -> str:
    """Return a number as it is written shortest; in a text, 3.10 may be another version than 3.1."""
    text = text.replace(",", "").removeprefix("+")
    whole, dot, rest = text.partition(".")
    if not dot or not rest.isdigit():
        return text
    rest = rest if short and rest.strip("0") else rest.rstrip("0")
    return f"{whole}.{rest}" if rest else whole
