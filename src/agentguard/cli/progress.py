"""How far something long has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from .shell import say

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Told = Callable[[str, int, int], None]

_SECONDS = 2.0
"""So often a line tells where no terminal shows a bar."""


@contextlib.contextmanager
def progress() -> Generator[Told]:
    """Give a function that is told what is done, how much of it, and how much there is."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    with _bars() as told:
        yield told


def _lines() -> Told:
    last, before = time.monotonic(), ""

    def told(what: str, done: int, total: int) -> None:
        nonlocal last, before
        if time.monotonic() - last >= _SECONDS or (what != before and done < total):
            last, before = time.monotonic(), what
            say(f"{what}: {done:,} of {total:,}")

    return told


@contextlib.contextmanager
def _bars() -> Generator[Told]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, int] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for earlier in tasks.values():
                    bars.update(earlier, visible=False)  # type: ignore[arg-type]
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        yield told
