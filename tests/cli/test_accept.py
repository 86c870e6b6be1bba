"""`agentguard store accept`: going on with a store that has lost commits."""

from __future__ import annotations

import shutil
from pathlib import Path

from agentguard import Guard, idempotent, tool_contract
from agentguard.stores._mark import Mark
from tests.cli.conftest import Call


def test_a_store_that_lost_nothing_needs_no_acceptance(run: Call) -> None:
    """`store accept` does nothing where nothing is lost, and says so."""
    ended = run("store", "accept", "--yes")
    assert ended.exit_code == 0
    assert "nothing to do" in ended.stderr


def test_a_store_that_lost_commits_is_used_again_once_it_is_accepted(
    run: Call, store: Path
) -> None:
    """Refused by every command, looked at with `--dry-run`, and accepted with a yes only."""
    Mark(store).note(10_000)
    assert "were acknowledged" in run("runs", "list").stderr
    assert "nothing was changed" in run("store", "accept", "--dry-run").stderr
    assert run("store", "accept").exit_code == 2
    assert run("runs", "list").exit_code != 0
    assert run("store", "accept", "--yes").exit_code == 0
    assert run("runs", "list").exit_code == 0


def test_what_was_executing_in_an_older_copy_is_in_doubt_once_it_is_accepted(
    run: Call, store: Path
) -> None:
    """It may have ended in the commits that are lost: somebody has to look."""
    guard, copy = Guard(f"sqlite:///{store}"), store.with_name("copy.db")

    @tool_contract(effect="write")
    @idempotent(key="pay:{ticket}")
    def pay(ticket: str) -> str:
        guard.store.check()
        shutil.copy(store, copy)
        shutil.copy(f"{store}-wal", f"{copy}-wal")
        return ticket

    with guard.run("paying", run_id="r"):
        pay("T-1")
    guard.close()
    shutil.move(copy, store)
    shutil.move(f"{copy}-wal", f"{store}-wal")
    assert "1 effect put in doubt" in run("store", "accept", "--yes").stderr
    assert "store_restored" in run("effects", "list", "--state", "in_doubt", "--json").stdout
