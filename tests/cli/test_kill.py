"""`agentguard kill`: stop something at once, see what is stopped, let it go on."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from agentguard import RunHalted
from tests.cli import world
from tests.cli.conftest import Call

WHO = ("--by", "ops", "--reason", "spam wave")


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        (["--tool", "refund"], "tool"), (["--agent", "support"], "agent"),
        (["--tenant", "default"], "tenant"), (["--all"], "all"),
    ],
)  # fmt: skip
def test_what_is_stopped_does_not_start(
    run: Call, store: Path, clock: world.Clock, what: list[str], kind: str
) -> None:
    """After `kill` returns, no call that it stands over starts; `--lift` takes it back."""
    assert run("kill", *what, *WHO, "--yes").exit_code == 0
    assert json.loads(run("kill", "--json").stdout)[0]["kind"] == kind
    guard = world.guard_of(store, clock)
    with guard.run("w") as inside:
        refused = world.attempt(world.refund, f"T-{inside.id}", Decimal(1))
        assert isinstance(refused, RunHalted)
        assert run("kill", *what, *WHO, "--lift", "--yes").exit_code == 0
        assert world.refund(f"T-{inside.id}", Decimal(1))["usd"] == 1
    guard.close()


def test_nothing_named_lists_what_is_stopped(run: Call) -> None:
    """`kill` alone prints who stopped what, why and since when."""
    run("kill", "--tool", "refund", *WHO, "--yes")
    lines = run("kill").stdout.splitlines()
    assert lines[0].split() == ["stopped", "name", "by", "reason", "since"]
    assert lines[1].split() == [
        "tool",
        "refund",
        "ops",
        "spam",
        "wave",
        "2026-03-01",
        "03:03:23",
        "UTC",
    ]


def test_the_list_has_the_documented_keys(run: Call) -> None:
    """`kill` as jsonl prints a line for each switch, with an ISO time."""
    run("kill", "--tool", "refund", *WHO, "--yes")
    found = json.loads(run("kill", "-o", "jsonl").stdout)
    assert found == {
        "kind": "tool", "name": "refund", "by": "ops", "reason": "spam wave",
        "at": "2026-03-01T03:03:23+00:00",
    }  # fmt: skip


def test_nothing_stopped_tells_the_command(run: Call) -> None:
    """When no switch is thrown, the message says how to throw one."""
    ended = run("kill")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert "agentguard kill --tool NAME" in ended.stderr


def test_a_dry_run_stops_nothing(run: Call) -> None:
    """`--dry-run` says what would be stopped."""
    ended = run("kill", "--all", *WHO, "--dry-run")
    assert ended.stderr == "would stop everything; nothing was changed\n"
    assert run("kill").stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ["kill", "--all", *WHO],
        ["kill", "--all", "--by", "ops", "--yes"],
        ["kill", "--all", "--reason", "x", "--yes"],
        ["kill", "--all", "--tool", "refund", *WHO, "--yes"],
        ["--tenant", "acme", "kill", "--all", *WHO, "--yes"],
    ],
)
def test_an_unclear_kill_is_a_usage_error(run: Call, words: list[str]) -> None:
    """Without a yes, a person, a reason or with two targets nothing is stopped: exit 2."""
    assert run(*words).exit_code == 2
    assert run("kill").stdout == ""


def test_lifting_what_does_not_stand_says_so(run: Call) -> None:
    """`--lift` of something that is not stopped changes nothing and says so."""
    ended = run("kill", "--tool", "refund", *WHO, "--lift", "--yes")
    assert "no switch stands over the tool refund" in ended.stderr
