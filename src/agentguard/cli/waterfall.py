"""A run on one time axis: a bar a step, idle time folded away, waiting for people drawn pale.

Theory of operation. Time in which something works is drawn to scale. A stretch in which nothing
does (people think, a process is dead) is folded into a mark that says how long it was, unless it
is short beside the rest. So an axis is a row of pieces, each with its own scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from .text import span

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence

    from ..record import Attempt, Step

_FOLD_FROM = 1 / 3
"""A stretch without work is folded when it is longer than this share of what would be left
if it and all longer ones were folded."""
_MARKS_TAKE = 0.6
"""The marks of folded stretches take at most this share of the axis."""
WORK, WAIT, LOST, TICK = "█", "░", "▒", "│"
BAR_STYLES = {"model": "blue", "read": "cyan", "write": "green", "other": "red"}
WAIT_STYLE, LOST_STYLE = "dim yellow", "dim red"


@dataclass(frozen=True)
class Segment:
    """A stretch of a bar; *kind* is model, read, write, other, wait, lost or tick."""

    kind: str
    began: float
    ended: float


@dataclass(frozen=True)
class Piece:
    """A stretch of the axis; *label* tells how long a folded one was."""

    began: float
    ended: float
    width: int
    label: str | None = None


_IDLE = ("wait", "lost")

Cells = list[tuple[str, str]]
"""Characters of a bar, each with its style."""


def segments(step: Step, now: dt.datetime) -> list[Segment]:
    """Return what a step was doing when, in seconds since the epoch."""
    found = [_wait(step, q.asked_at, q.decided_at, now) for q in step.questions]
    found += [attempt_bar(step, attempt, now) for attempt in step.attempts]
    found += [Segment("tick", d.at.timestamp(), d.at.timestamp()) for d in step.duplicates]
    if step.kind == "model" and step.ended_at is not None:
        found.append(Segment("model", step.began_at.timestamp(), step.ended_at.timestamp()))
    return found or [Segment("tick", step.began_at.timestamp(), step.began_at.timestamp())]


def _wait(step: Step, asked: dt.datetime, decided: dt.datetime | None, now: dt.datetime) -> Segment:
    return Segment("wait", asked.timestamp(), (decided or step.ended_at or now).timestamp())


def attempt_bar(step: Step, attempt: Attempt, now: dt.datetime) -> Segment:
    """Return the stretch of one start of a step's body."""
    ended = attempt.ended_at or step.ended_at or now
    kind = "lost" if attempt.lost else step.kind
    return Segment(kind, attempt.began_at.timestamp(), ended.timestamp())


class Axis:
    """Where moments of a run stand on a line of *width* cells."""

    def __init__(self, bars: Iterable[Sequence[Segment]], width: int) -> None:
        drawn = [segment for bar in bars for segment in bar]
        self.width = width
        self.began = min((s.began for s in drawn), default=0.0)
        self.ended = max((s.ended for s in drawn), default=0.0)
        work = merged((s.began, s.ended) for s in drawn if s.kind not in _IDLE)
        self.pieces = _pieces(work, self.began, self.ended, width)

    def column(self, at: float) -> float:
        """Return the column of a moment."""
        left = 0.0
        for piece in self.pieces:
            if at <= piece.ended:
                inside = max(at - piece.began, 0.0) / ((piece.ended - piece.began) or 1.0)
                return left + inside * piece.width
            left += piece.width
        return left

    def ruler(self) -> str:
        """Return the line above the bars: what was folded, and how long it all took."""
        line = list("─" * self.width)
        left = 0
        for piece in self.pieces:
            if piece.label is not None:
                line[left : left + piece.width] = piece.label.center(piece.width, "┄")
            left += piece.width
        for text, at in (("0", 0), (f" {span(self.ended - self.began)}", -1)):
            _write(line, text, at)
        return "".join(line[: self.width])

    def bar(self, parts: Iterable[Segment]) -> Cells:
        """Draw a bar; work stands over waiting, waiting over nothing."""
        cells: Cells = [(" ", "")] * self.width
        for part in sorted(parts, key=_layer):
            first = min(int(self.column(part.began)), self.width - 1)
            last = max(first + 1, min(round(self.column(part.ended)), self.width))
            cells[first:last] = [_cell(part.kind)] * (last - first)
        return cells


def _write(line: list[str], text: str, at: int) -> None:
    """Put *text* at the left or right end of *line* where only the ruler is in the way."""
    place = slice(0, len(text)) if at == 0 else slice(len(line) - len(text), len(line))
    if set(line[place]) == {"─"}:
        line[place] = text


def _layer(part: Segment) -> int:
    return {"wait": 0, "lost": 1, "tick": 2}.get(part.kind, 3)


def _cell(kind: str) -> tuple[str, str]:
    odd = {"wait": (WAIT, WAIT_STYLE), "lost": (LOST, LOST_STYLE), "tick": (TICK, "dim")}
    return odd.get(kind) or (WORK, BAR_STYLES[kind])


def merged(stretches: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return stretches of time without overlaps."""
    found: list[tuple[float, float]] = []
    for began, ended in sorted(stretches):
        if found and began <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], ended))
        else:
            found.append((began, ended))
    return found


def _pieces(
    work: Sequence[tuple[float, float]], began: float, ended: float, width: int
) -> list[Piece]:
    edges = [began, *(edge for stretch in work for edge in stretch), ended]
    gaps = list(zip(edges[::2], edges[1::2], strict=True))
    folded = [gap for gap in gaps if _is_long(gap, gaps, ended - began)]
    marks = _marks(folded, width)
    if not marks:
        return [Piece(began, ended, width)]
    rest = width - sum(len(label) for label in marks)
    return _scaled(folded, marks, began, ended, rest)


def _is_long(gap: tuple[float, float], gaps: Sequence[tuple[float, float]], total: float) -> bool:
    length = gap[1] - gap[0]
    as_long = (last - first for first, last in gaps if last - first >= length)
    return length > 0 and length > (total - sum(as_long)) * _FOLD_FROM


def _marks(folded: Sequence[tuple[float, float]], width: int) -> list[str]:
    """Return what stands for the folded stretches, or nothing if there are too many.

    The longest ones tell their length, as far as there is room.
    """
    room = width * _MARKS_TAKE
    marks = ["┄⋯┄" if 3 * len(folded) <= room else "⋯"] * len(folded)
    for at in sorted(range(len(folded)), key=lambda at: folded[at][0] - folded[at][1]):
        label = f"┄ {span(folded[at][1] - folded[at][0])} ┄"
        if sum(map(len, marks)) - len(marks[at]) + len(label) <= room:
            marks[at] = label
    return marks if sum(map(len, marks)) <= room else []


def _scaled(
    folded: Sequence[tuple[float, float]], marks: Sequence[str], began: float, ended: float,
    rest: int,
) -> list[Piece]:  # fmt: skip
    """Give what lies between the folded stretches its share of the cells that are left."""
    edges = [began, *(edge for gap in folded for edge in gap), ended]
    kept = list(zip(edges[::2], edges[1::2], strict=True))
    shares = _shares([last - first for first, last in kept], rest)
    pieces: list[Piece] = []
    for index, (stretch, share) in enumerate(zip(kept, shares, strict=True)):
        if share:
            pieces.append(Piece(*stretch, share))
        if index < len(folded):
            mark = marks[index]
            pieces.append(Piece(*folded[index], len(mark), mark))
    return pieces


def _shares(lengths: Sequence[float], cells: int) -> list[int]:
    """Divide *cells* in proportion; whatever is drawn at all gets one."""
    least = [1 if index or length else 0 for index, length in enumerate(lengths)]
    least[-1] = 1 if lengths[-1] or len(lengths) > 1 else 0
    spare, total = cells - sum(least), sum(lengths) or 1.0
    shares = [low + int(spare * length / total) for low, length in zip(least, lengths, strict=True)]
    shares[max(range(len(lengths)), key=lambda at: lengths[at])] += cells - sum(shares)
    return shares


def runs_of(cells: Cells) -> list[tuple[str, str]]:
    """Return a bar as texts of one style each."""
    return [
        ("".join(char for char, _ in group), style)
        for style, group in groupby(cells, key=lambda cell: cell[1])
    ]
