"""Data on stdout: JSON for programs, plain columns for pipes, tables and colour for terminals."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from .shell import say, shell
from .text import breadth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rich.console import Console

T = TypeVar("T")
_DEL = {0x7F: "\\u007f"}
STYLES = {
    "succeeded": "green", "approved": "green", "used": "green", "ok": "green",
    "running": "cyan", "executing": "cyan", "open": "cyan",
    "waiting": "yellow", "drafted": "yellow", "pending": "yellow", "duplicate": "dim", "note": "yellow",
    "in_doubt": "bold red", "failed": "red", "failed_final": "red", "failed_retryable": "red",
    "rejected": "red", "refused": "red", "halted": "red", "denied": "red", "cancelled": "red",
    "expired": "red", "refuted": "red", "undone": "yellow",
}  # fmt: skip
"""The one table of colours; what has no entry is printed plain."""


def is_terminal() -> bool:
    """Return whether a person looks at stdout."""
    return sys.stdout.isatty()


def console() -> Console:
    """Return a console for the terminal; without colour where NO_COLOR is set."""
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    system = None if plain else "auto"
    return Console(color_system=system, highlight=False, markup=False, emoji=False)  # type: ignore[arg-type]


def width() -> int:
    """Return how wide the terminal is."""
    return shutil.get_terminal_size((100, 40)).columns


def dumped(data: Any, indent: int | None = None) -> str:
    """Return JSON in plain ASCII, in which nothing can hide or steer a terminal."""
    return json.dumps(data, indent=indent, ensure_ascii=True).translate(_DEL)


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column of a list.

    Attributes:
        cell: the text for a row; escaped already.
        brief: the text on a terminal, where less fits.
        state: names the row's state, for colour.
        flex: may be cut to so many cells on a terminal when the line is too long; 0 means never.
        spare: the highest goes first where the line is still too long; 0 always stays.
    """

    title: str
    cell: Callable[[T], str]
    brief: Callable[[T], str] | None = None
    state: Callable[[T], str] | None = None
    right: bool = False
    flex: int = 0
    spare: int = 0


def show_list(
    rows: Sequence[T], as_json: Callable[[T], Mapping[str, Any]], columns: Sequence[Column[T]],
    empty: str = "",
) -> None:  # fmt: skip
    """Print rows in the form that was asked for; an empty list tells the next command."""
    form = shell().output
    if form == "json":
        click.echo(dumped([as_json(row) for row in rows], 2))
    elif form == "jsonl":
        for row in rows:
            click.echo(dumped(as_json(row)))
    elif not rows:
        say(empty)
    else:
        table(rows, columns)


def table(rows: Sequence[T], columns: Sequence[Column[T]]) -> None:
    """Print columns: in full where a program may read them, fitted to the line on a terminal.

    What does not fit however many columns are left out goes on in the next line: half a number is
    another number.
    """
    live = is_terminal()
    columns, sizes = list(columns), _sizes(rows, columns, live=live)
    while live and not _fit(sizes, columns):
        least = max(range(len(columns)), key=lambda at: columns[at].spare)
        if not columns[least].spare:
            break
        del columns[least]
        sizes = _sizes(rows, columns, live=live)
    if live:
        _print_styled(rows, columns, sizes)
        return
    click.echo(_joined([column.title for column in columns], columns, sizes).rstrip())
    for row in rows:
        click.echo(_joined([column.cell(row) for column in columns], columns, sizes).rstrip())


def _sizes(rows: Sequence[T], columns: Sequence[Column[T]], *, live: bool) -> list[int]:
    return [
        max([breadth(column.title), *(breadth(_cell(column, row, live=live)) for row in rows)])
        for column in columns
    ]


def _cell(column: Column[T], row: T, *, live: bool) -> str:
    return (column.brief if live and column.brief else column.cell)(row)


def _fit(sizes: list[int], columns: Sequence[Column[Any]]) -> bool:
    """Take what the line is too long from the longest of the columns that may be cut."""
    over = sum(sizes) + 2 * (len(sizes) - 1) - width()
    for _ in range(max(over, 0)):
        flexible = [at for at, column in enumerate(columns) if 0 < column.flex < sizes[at]]
        if not flexible:
            return False
        sizes[max(flexible, key=lambda at: sizes[at])] -= 1
    return True


def _joined(line: Sequence[str], columns: Sequence[Column[Any]], sizes: Sequence[int]) -> str:
    cells = zip(line, sizes, columns, strict=True)
    return "  ".join(padded(cell, size, right=column.right) for cell, size, column in cells)


def _print_styled(rows: Sequence[T], columns: Sequence[Column[T]], sizes: Sequence[int]) -> None:
    from rich.text import Text

    screen, titles = console(), [column.title for column in columns]
    screen.print(Text(_joined(titles, columns, sizes), "dim"), soft_wrap=True)
    for row in rows:
        shown = Text()
        for size, column in zip(sizes, columns, strict=True):
            style = STYLES.get(column.state(row), "") if column.state else ""
            text = cut(_cell(column, row, live=True), size)
            shown.append(padded(text, size, right=column.right), style).append("  ")
        shown.rstrip()
        screen.print(shown, soft_wrap=True)


def padded(text: str, size: int, *, right: bool = False) -> str:
    """Return *text* filled with blanks to *size* cells."""
    blanks = " " * (size - breadth(text))
    return blanks + text if right else text + blanks


def cut(text: str, size: int) -> str:
    """Return *text* in at most *size* cells, saying so where it is cut."""
    if breadth(text) <= size:
        return text
    while breadth(text) > size - 1:
        text = text[:-1]
    return f"{text}…"


@dataclass(frozen=True)
class Line:
    """One labelled line; *state* names its colour."""

    label: str
    text: str
    state: str = ""


def show_one(data: Mapping[str, Any], lines: Callable[[], Iterable[Line]] | None = None) -> None:
    """Print one thing: an object for programs, labelled lines for people."""
    form = shell().output
    if form == "text" and lines is not None:
        sheet(list(lines()))
    else:
        click.echo(dumped(data, 2 if form == "json" else None))


def sheet(lines: Sequence[Line]) -> None:
    """Print labelled lines; on a terminal, long ones are folded under themselves."""
    size = max((len(line.label) for line in lines), default=0)
    if is_terminal():
        _rich_sheet(lines, size)
        return
    for line in lines:
        click.echo(f"{line.label.ljust(size)}  {line.text}".rstrip())


def _rich_sheet(lines: Sequence[Line], size: int) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=size, no_wrap=True)
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row(Text(line.label, "bold"), Text(line.text, STYLES.get(line.state, "")))
    console().print(grid)
