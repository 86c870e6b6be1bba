"""Measure agentguard beside its floors and its peers: `python -m benchmarks [--quick]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path
from time import monotonic

from .costs import profiles, table
from .figures import Group
from .machine import Description, describe, spin, spread_of_spins
from .measure import FULL, QUICK, Plan, Say, measure
from .page import page
from .plots import plots
from .postgres import place_of, running_server
from .registry import ALL, GROUPS
from .report import notes, record, text
from .sizes import QUICK_SIZES, SIZES, prepare

DOCS = Path(__file__).resolve().parents[1] / "docs"


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under 3 min on 2 cores")
    parser.add_argument(
        "--only", choices=GROUPS, action="append", help="measure only this group; may be repeated"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure as JSON too")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write the page as Markdown too, its plots beside it",
    )
    parser.add_argument(
        "--publish", action="store_true", help="write page, plots and figures into docs/"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path.cwd(),
        help="where the stores lie during the run, not on a RAM disk (default: here)",
    )
    parser.add_argument(
        "--costs",
        action="store_true",
        help="say also where the CPU goes; a full run of all groups always does",
    )
    options = parser.parse_args(arguments)
    options.costs |= not (options.quick or options.only)
    if options.publish:
        options.json, options.markdown = DOCS / "benchmarks.json", DOCS / "benchmarks.md"
    for file in filter(None, (options.json, options.markdown)):
        file.parent.mkdir(parents=True, exist_ok=True)  # not found missing after ten minutes
    options.words = " ".join(sys.argv[1:] if arguments is None else arguments)
    return options


def progress() -> Say:
    """Say on standard error what is measured: one changing line on a terminal, else many."""
    begun, shown = monotonic(), ""

    def say(sentence: str) -> None:
        nonlocal shown
        if sys.stderr.isatty():
            print(
                f"\r\033[K[{monotonic() - begun:3.0f} s] {sentence}",
                end="",
                file=sys.stderr,
                flush=True,
            )
        elif shown != (shown := sentence.partition(",")[0]):
            print(f"[{monotonic() - begun:3.0f} s] {shown}", file=sys.stderr, flush=True)

    return say


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write the files that were asked for."""
    options = parsed(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=options.folder))
    try:
        machine, groups, costs = everything(options, folder, progress())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    publish(options, machine, groups, costs)
    return 0


def everything(
    options: argparse.Namespace, folder: Path, say: Say
) -> tuple[Description, list[Group], list[str]]:
    """Measure all groups that were asked for, then what it costs."""
    machine, groups, costs, begun = describe(folder), [], [], monotonic()
    plans, spins = (QUICK if options.quick else FULL), [spin()]
    with running_server(folder) as machine["postgres"], asyncio.Runner() as runner:
        for name in options.only or GROUPS:
            if name == "size":
                sizes = QUICK_SIZES if options.quick else SIZES
                prepare(place_of(folder / "size" / "filling", runner), sizes, say)
            groups.append(measured(name, plans[name], folder, say, quick=options.quick))
            spins += [spin() for _ in range(3)]
        if options.costs:
            costs = table(profiles(folder, say))
    machine["processor speed"] = spread_of_spins(spins)
    machine["the run took"] = f"{(monotonic() - begun) / 60:.1f} minutes"
    return machine, groups, costs


def measured(name: str, plan: Plan, folder: Path, say: Say, *, quick: bool) -> Group:
    """Measure one group and say what had to be left out."""
    subjects = [subject for subject in ALL if subject.group == name]
    group = measure(name, subjects, plan, folder, say, quick=quick)
    for note in notes([group]):
        print(
            f"\nleft out: {note}" if sys.stderr.isatty() else f"left out: {note}", file=sys.stderr
        )
    return group


def publish(
    options: argparse.Namespace, machine: Description, groups: list[Group], costs: list[str]
) -> None:
    """Print the table, and write it elsewhere if asked."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print("\n".join([text(machine, groups), *(costs and ["", "What it costs", *costs])]))
    if options.json:
        options.json.write_text(json.dumps(record(machine, groups), indent=1) + "\n")
    if options.markdown:
        drawn = plots(groups)
        for name, drawing in drawn.items():
            (options.markdown.parent / name).write_text(drawing)
        options.markdown.write_text(page(machine, groups, drawn, costs, options.words))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
