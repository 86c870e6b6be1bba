"""`agentguard store copy`: a record moves to another store, and somebody watches."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from ..stores import copying
from .output import Line, show_one
from .progress import progress
from .shell import CODES, Exit, PlainCommand, careful, confirmed
from .text import count, escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

COPY_KEYS = ("source", "target", "before", "tables", "runs", "broken")


@click.command("copy", cls=PlainCommand, epilog=f"JSON keys: {', '.join(COPY_KEYS)}. {CODES}")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@careful
def copy(source: str, target: str, dry_run: bool, yes: bool) -> int:  # noqa: FBT001 - click
    """Move a record into an empty store, such as from SQLite to PostgreSQL, and check it row by row.

    Stop all workers first. Killed or interrupted, the same command goes on. Afterwards nothing
    starts in the source any more: give its workers the destination.
    """
    copying.look(source, target)
    if not confirmed(f"move the record of {source} to {target}", dry_run=dry_run, yes=yes):
        return Exit.DONE
    with progress() as told:
        copied = copying.copy(source, target, told)
    data = {
        "source": copied.source, "target": copied.target, "before": copied.before,
        "tables": [dataclasses.asdict(part) for part in copied.parts], "runs": copied.runs,
        "broken": copied.broken,
    }  # fmt: skip
    show_one(data, lambda: _copied(copied))
    return Exit.CHECK_FAILED if copied.broken else Exit.DONE


def _copied(copied: copying.Copied) -> Iterator[Line]:
    yield Line("from", escaped(copied.source))
    yield Line("to", escaped(copied.target))
    if copied.before:
        yield Line("copied", "earlier; nothing was done now")
        return
    for part in copied.parts:
        yield Line(
            part.table, f"{count(part.rows, 'row')}, digest {part.digest[:16]}, same in both"
        )
    yield Line("chains", f"{count(copied.runs, 'run')} checked")
    for said in copied.broken:
        yield Line("broken", f"{escaped(said)}, in the source too", "failed")
    yield Line("source", "nothing starts there any more: give its workers the new store")
