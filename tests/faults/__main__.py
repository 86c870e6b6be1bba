"""Breaks everything and shows what came of it: `python3 run.py faults`.

    python3 run.py faults [--long] [--seed N] [--only F5 …] [--store sqlite] [-o faults.json]

The short form tries fixed points, those that the tests try, too; --long tries all of them, and then
every seeded bug. Ends with 1 if anything was found, if a trial failed or hung, or is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.faults.forms import SAID
from tests.faults.matrix import COLUMNS, ROWS, Row, as_json
from tests.faults.mutants import MUTANTS, is_caught, trial
from tests.faults.trials import Outcome, make

MUTANT_ROW = "mutants"
TEXTS = 3  # columns, before those of numbers
COUNTED = {  # what the published figures are called, and which rows add up to them
    "crash points": ("F1", "F2", "F10", "F11", "F12", "F13"),
    "full-disk and I/O-error points": ("F3", "F4"),
    "power-loss images": ("F5",),
    "schedules": ("F6", "F16"),
    "mixtures of verbs": ("F7",),
    "damaged files": ("F17",),
}


def main(arguments: Sequence[str]) -> int:
    """Make the trials that were asked for and show what they have found."""
    asked = parsed(arguments)
    os.environ[SAID] = "1" if asked.long else ""
    rows = [row for row in ROWS if is_asked(row, asked)]
    names = list(MUTANTS) if asked.mutants else []
    with progress(len(rows) + len(names)) as tell:
        outcomes = [told(tell, row, asked) for row in rows]
        caught = dict(mutants(tell, names))
    console = Console(highlight=False)
    for text in (*(table(outcomes) if outcomes else ()), "", *endings(outcomes, caught, asked)):
        console.print(text, markup=False, soft_wrap=True)
    if asked.output:
        Path(asked.output).write_text(json.dumps(report(outcomes, caught, asked), indent=1) + "\n")
    return int(any(each.is_bad for each in outcomes) or not all(caught.values()))


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    faults, stores = sorted({r.fault for r in ROWS}, key=number), sorted({r.store for r in ROWS})
    parser = argparse.ArgumentParser(prog="run.py faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--long", action="store_true", help="all points, and the seeded bugs")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="1 by default")
    parser.add_argument(
        "--only", action="append", choices=[*faults, MUTANT_ROW], help="may be repeated"
    )
    parser.add_argument("--store", choices=stores, help="rows of one store")
    parser.add_argument("-o", "--output", metavar="FILE", help="write everything as JSON, too")
    asked = parser.parse_args(arguments)
    asked.mutants = MUTANT_ROW in asked.only if asked.only else asked.long and not asked.store
    return asked


def number(fault: str) -> int:
    """Sort F2 before F10."""
    return int(fault[1:])


def is_asked(row: Row, asked: argparse.Namespace) -> bool:
    """Tell whether a row is among those to play."""
    stores = (None, row.store, engine(row.store))
    return (not asked.only or row.fault in asked.only) and asked.store in stores


def engine(store: str) -> str:
    """Return what a store is, without how it is used in a row: postgres of postgres_hosts."""
    return store.partition("_")[0]


class progress:  # noqa: N801 - used as a function that is a context
    """Shows a bar on a terminal, and one line for each trial anywhere else."""

    def __init__(self, total: int) -> None:
        self._console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._bar = Progress(
            *columns, TimeElapsedColumn(), console=self._console, transient=True,
            disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Callable[[str, str], None]:
        self._bar.start()
        return self.tell

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, begins: str, ended: str) -> None:
        """Say which trial begins, or how one has ended."""
        if ended:
            self._bar.advance(self._task)
            self._console.print(f"faults: {ended}", markup=False, soft_wrap=True)
        self._bar.update(self._task, description=begins)


def told(tell: Callable[[str, str], None], row: Row, asked: argparse.Namespace) -> Outcome:
    """Make one trial, and tell of it as it begins and ends."""
    tell(f"{row}: {row.what}", "")
    ended = make(row, long=asked.long, seed=asked.seed)
    tell("", f"{row}: {short_of(ended)}")
    return ended


def short_of(ended: Outcome) -> str:
    """Say in a line how a trial has ended."""
    if ended.result is None:
        return f"{ended.status}: {last_line(ended.words)}"
    found = ", ".join(
        f"{count} {column}" for column in COLUMNS if (count := getattr(ended.result, column))
    )
    result = ended.result
    return (
        f"{found or ended.status}, {result.points} points, {result.seconds} s, seed {result.seed}"
    )


def last_line(words: str) -> str:
    """Return the last line that says something."""
    return words.strip().rpartition("\n")[2]


def mutants(tell: Callable[[str, str], None], names: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Try every seeded bug, as many at a time as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, ended in zip(names, pool.map(trial, names), strict=True):
            caught = is_caught(name, ended)
            tell("seeded bugs", f"seeded bug {name}: {'caught' if caught else 'NOT CAUGHT'}")
            yield name, caught


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Show the matrix; the columns of what was found bear the names that its fields have."""
    rows = [("fault", "store", "what", "points", *COLUMNS, "seconds"), *map(cells, outcomes)]
    whole = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(len(row[column]) for row in rows) for column in range(TEXTS)]
    widths += [max(map(len, column)) for column in list(zip(*whole, strict=True))[TEXTS:]]
    for row in rows:
        aligned = (
            f"{cell:{'<' if number < TEXTS else '>'}{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=False))
        )
        yield " ".join(aligned).rstrip()


def cells(ended: Outcome) -> tuple[str, ...]:
    """Write one row."""
    row, result = ended.row, ended.result
    if result is None:
        return (row.fault, row.store, row.what, ended.status.upper())
    counts = [str(getattr(result, column)) for column in COLUMNS]
    return (row.fault, row.store, row.what, f"{result.points:,}", *counts, f"{result.seconds:.1f}")


def endings(
    outcomes: Sequence[Outcome], caught: dict[str, bool], asked: argparse.Namespace
) -> Iterator[str]:
    """Say what the table does not: reasons, findings, notes, seeded bugs, sums, the seed."""
    for ended in outcomes:
        if ended.words:
            yield f"{ended.row} {ended.status}:\n{ended.words}\n"
        elif ended.result and ended.result.notes:
            yield f"{ended.row}: {ended.result.notes}"
    if caught:
        yield from ("", *mutant_lines(caught))
    yield ""
    if outcomes:
        yield from (f"{name}: {text}" for name, text in totals(outcomes).items())
    if caught:
        yield f"seeded bugs caught: {sum(caught.values())} of {len(caught)}"
    yield f"seed {asked.seed}, {'long' if asked.long else 'short'} form"


def mutant_lines(caught: dict[str, bool]) -> Iterator[str]:
    """Show each seeded bug, the test that is to catch it, and whether it does."""
    width = max(map(len, caught))
    for name, is_so in caught.items():
        yield f"{name:{width}}  {'yes' if is_so else 'NO '}  {MUTANTS[name].caught_by}"


def totals(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Add up the figures that are published: tried points by kind and store, findings by kind."""
    results = [ended.result for ended in outcomes if ended.result]
    sums: dict[str, str] = {}
    for name, faults in COUNTED.items():
        by_store: dict[str, int] = {}
        for result in results:
            if result.fault in faults:
                store = engine(result.store)
                by_store[store] = by_store.get(store, 0) + result.points
        if by_store:
            sums[name] = ", ".join(f"{count:,} on {store}" for store, count in by_store.items())
    for column in COLUMNS:
        sums[column] = str(sum(getattr(result, column) for result in results))
    states = [ended.status for ended in outcomes]
    sums["rows"] = ", ".join(f"{states.count(each)} {each}" for each in dict.fromkeys(states))
    return sums


def report(
    outcomes: Sequence[Outcome], caught: dict[str, bool], asked: argparse.Namespace
) -> dict[str, object]:
    """Put everything together for a program."""
    return {
        "seed": asked.seed,
        "form": "long" if asked.long else "short",
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "rows": [
            {"fault": each.row.fault, "store": each.row.store, "what": each.row.what}
            | {"status": each.status, "words": each.words}
            | ({"result": as_json(each.result)} if each.result else {})
            for each in outcomes
        ],
        "mutants": [
            {"name": name, "caught_by": MUTANTS[name].caught_by, "caught": is_so}
            for name, is_so in caught.items()
        ],
        "totals": totals(outcomes),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
