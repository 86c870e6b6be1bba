"""`agentguard store accept`: going on with a store that has lost commits."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import click

from ..ledger import settling
from ..stores._mark import Mark, commits
from .shell import CODES, Failure, careful, confirmed, say, shell
from .text import count

if TYPE_CHECKING:
    from pathlib import Path


@click.command("accept", epilog=CODES)
@careful
def accept(dry_run: bool, yes: bool) -> None:  # noqa: FBT001 - click gives them by name
    """Go on with a store that lost commits: an older copy was put back, or its log was damaged.

    What was done in the lost commits is not on record, and its keys count as free: look into the
    backends first, and keep workers stopped that would do it again. What was executing is put in
    doubt.
    """
    path = shell().existing()
    there, acknowledged = _commits_of(path), Mark(path).read()
    if there >= acknowledged:
        say(f"{path} holds all {acknowledged} commits that were acknowledged; nothing to do")
        return
    what = (
        f"go on with {path} as it is, without {count(acknowledged - there, 'commit')} it has lost"
    )
    if confirmed(what, dry_run=dry_run, yes=yes):
        Mark(path).note(there)
        with shell().guard() as guard:
            doubts = guard.store.transact(settling.doubt_all)
        say(f"accepted; {count(doubts, 'effect')} put in doubt: agentguard effects list")


def _commits_of(path: Path) -> int:
    try:
        with closing(sqlite3.connect(path)) as connection:
            return commits(connection)
    except sqlite3.Error as error:
        raise Failure(f"the store {path} cannot be read: {error}") from None
