"""`agentguard runs rollback`: what a run wrote is shown, then undone, the last effect first."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentguard import Guard
from tests.cli import world
from tests.cli.conftest import Call

SHOP = '''
"""The tools of a shop; what happens is a line in a file."""

from pathlib import Path

from agentguard import NoEffect, compensated_by, idempotent, tool_contract

WORLD = Path(__file__).with_name("world.txt")


def happen(line):
    with WORLD.open("a") as file:
        print(line, file=file)


def void(result, ticket):
    if WORLD.with_name("closed").exists():
        raise NoEffect("the bank is closed")
    happen(f"undo {ticket} {result}")


@tool_contract(effect="write")
@idempotent(key="pay:{ticket}")
@compensated_by(void)
def pay(ticket: str) -> str:
    happen(f"pay {ticket}")
    return f"re-{ticket}"


@tool_contract(effect="write")
@idempotent(key="gift:{ticket}")
@compensated_by(void, approval={"roles": ["finance"]})
def gift(ticket: str) -> str:
    happen(f"gift {ticket}")
    return f"gi-{ticket}"


@tool_contract(effect="write", irreversible=True)
@idempotent(key="mail:{to}")
def mail(to: str) -> None:
    happen(f"mail {to}")


TOOLS = [pay, gift, mail]
'''
WHO = ("--by", "dana", "--reason", "wrong customer", "--tools", "shop_of_tests")


@pytest.fixture(name="shop")
def shop_beside_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module with tools in the folder where the shell stands."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop_of_tests.py").write_text(SHOP)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("shop_of_tests", None)


@pytest.fixture(name="guard")
def guard_on_the_record(store: Path, clock: world.Clock) -> Iterator[Guard]:
    """The guard under which the agent works."""
    opened = world.guard_of(store, clock)
    yield opened
    opened.close()


def work(guard: Guard, *calls: tuple[str, str]) -> None:
    """Let an agent work in the run r-shop."""
    import shop_of_tests as tools  # type: ignore[import-not-found] # made by the test

    with guard.run("shop", run_id="r-shop"):
        for name, ticket in calls:
            getattr(tools, name)(ticket)


def lines(shop: Path) -> list[str]:
    """Return what happened."""
    return (shop / "world.txt").read_text().splitlines()


def test_a_rollback_is_shown_and_then_done(run: Call, shop: Path, guard: Guard) -> None:
    """With a yes it undoes from the last effect on and prints a line for each."""
    work(guard, ("pay", "T-1"), ("mail", "eve"), ("pay", "T-2"))
    done = run("runs", "rollback", "r-shop", *WHO, "--yes")
    assert done.exit_code == 0
    title, *told = [line.split(maxsplit=3)[1:] for line in done.stdout.splitlines()]
    assert " ".join(title).split() == ["tool", "step", "what", "why"]
    assert [" ".join(line).split() for line in told] == [
        ["pay", "3", "undone", "-"], ["mail", "2", "irreversible", "declared", "so"],
        ["pay", "1", "undone", "-"],
    ]  # fmt: skip
    assert lines(shop)[3:] == ["undo T-2 re-T-2", "undo T-1 re-T-1"]


def test_a_dry_run_changes_nothing(run: Call, shop: Path, guard: Guard) -> None:
    """`--dry-run` lists what would be undone, as far back as `--step` says."""
    work(guard, ("pay", "T-1"), ("pay", "T-2"))
    looked = run("runs", "rollback", "r-shop", *WHO, "--step", "2", "--dry-run", "--json")
    assert looked.exit_code == 0
    (found,) = json.loads(looked.stdout)
    assert (found["tool"], found["step"], found["what"]) == ("pay", 2, "would be undone")
    assert found["undo"] == f"comp/{found['key']}"
    assert lines(shop) == ["pay T-1", "pay T-2"]


def test_without_a_yes_and_without_anybody_to_ask_nothing_is_done(
    run: Call, shop: Path, guard: Guard
) -> None:
    """The usage error says what it would do."""
    work(guard, ("pay", "T-1"))
    asked = run("runs", "rollback", "r-shop", *WHO)
    assert asked.exit_code == 2
    assert "this would undo 1 effect of run r-shop: say --yes" in asked.stderr
    assert lines(shop) == ["pay T-1"]


def test_an_undo_that_waits_for_people_ends_with_4(run: Call, shop: Path, guard: Guard) -> None:
    """The message names the approval; once it is given, the same command goes on."""
    work(guard, ("pay", "T-1"), ("gift", "T-1"))
    waits = run("runs", "rollback", "r-shop", *WHO, "--yes")
    assert waits.exit_code == 4
    assert "stopped at gift, step 2: waits for approval" in waits.stderr
    (approval,) = [a for a in guard.approvals.list("pending") if a.tool == "gift.undo"]
    run("approvals", "approve", approval.id, "--by", "fred", "--role", "finance")
    assert run("runs", "rollback", "r-shop", *WHO, "--yes").exit_code == 0
    assert lines(shop)[2:] == ["undo T-1 gi-T-1", "undo T-1 re-T-1"]


def test_a_rejected_undo_ends_with_3(run: Call, shop: Path, guard: Guard) -> None:
    """A no is told with its reason, and nothing behind it is undone."""
    work(guard, ("pay", "T-1"), ("gift", "T-1"))
    run("runs", "rollback", "r-shop", *WHO, "--yes")
    (approval,) = [a for a in guard.approvals.list("pending") if a.tool == "gift.undo"]
    run("approvals", "reject", approval.id, "--by", "fred", "--role", "finance",
        "--reason", "a gift stays")  # fmt: skip
    said = run("runs", "rollback", "r-shop", *WHO, "--yes")
    assert said.exit_code == 3
    assert "rejected by fred: a gift stays" in said.stderr
    assert lines(shop) == ["pay T-1", "gift T-1"]


def test_a_failed_undo_ends_with_1(run: Call, shop: Path, guard: Guard) -> None:
    """The sentence says what the undo said."""
    work(guard, ("pay", "T-1"))
    (shop / "closed").touch()
    failed = run("runs", "rollback", "r-shop", *WHO, "--yes")
    assert failed.exit_code == 1
    assert "stopped at pay, step 1: failed; NoEffect: the bank is closed" in failed.stderr


def test_a_missing_tool_is_asked_for(run: Call, shop: Path, guard: Guard) -> None:
    """Without the function that has the undo nothing begins."""
    work(guard, ("pay", "T-1"))
    words = [*WHO[:-1], "shop_of_tests:mail"]
    refused = run("runs", "rollback", "r-shop", *words, "--yes")
    assert refused.exit_code == 1
    assert "wrote with pay (undone by void)" in refused.stderr


def test_the_pages_of_run_and_effect_say_that_it_was_undone(
    run: Call, shop: Path, guard: Guard
) -> None:
    """Whoever looks at the step or the effect finds what undid it."""
    work(guard, ("pay", "T-1"))
    run("runs", "rollback", "r-shop", *WHO, "--yes")
    step = run("runs", "show", "r-shop", "--step", "1")
    assert "undone: agentguard effects show comp/ag1_" in step.stdout
    (undo,) = [e.id for e in guard.effects.list(run_id="r-shop") if e.id.startswith("comp/")]
    assert "pay.undo" in run("effects", "show", undo).stdout
    listed = run("effects", "list", "--run", "r-shop").stdout.splitlines()
    assert sorted(line.split()[1:4] for line in listed[1:]) == [
        ["pay", "succeeded", "undone"], ["pay.undo", "succeeded", "-"],
    ]  # fmt: skip


def test_a_rollback_needs_a_reason(run: Call, shop: Path, guard: Guard) -> None:
    """Without one it is a usage error."""
    work(guard, ("pay", "T-1"))
    words = ["--by", "dana", "--tools", "shop_of_tests", "--yes"]
    assert run("runs", "rollback", "r-shop", *words).exit_code == 2
    assert lines(shop) == ["pay T-1"]
