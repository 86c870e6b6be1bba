"""`agentguard artifacts`: what is kept, how often it was found, and its removal."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from agentguard import Principal
from agentguard.caching import cached
from agentguard.testing import override
from tests.cli import world
from tests.cli.conftest import Call


@cached("summary", version="p1", cost="0.5")
def summary(text: str) -> str:
    """Return the first word."""
    return text.split(maxsplit=1)[0]


@cached("embedding", version="e1", ttl="30s")
def embedding(text: str) -> list[Decimal]:
    """Return a number."""
    return [Decimal(len(text))]


@pytest.fixture(autouse=True)
def made(store: Path, clock: world.Clock) -> None:
    """Two artifacts, one of them found once, the other one old."""
    guard = world.guard_of(store, clock)
    with override(guard), guard.run("w", principal=Principal(tenant="acme")):
        embedding("two words")
        clock.tick(60)
        summary("two words")
        summary("two words")
    guard.close()


def test_what_is_kept_is_listed_without_its_values(run: Call) -> None:
    """The newest first, with size, cost and times."""
    lines = run("artifacts", "list").stdout.splitlines()
    assert lines[0].split() == [
        "kind", "version", "tenant", "digest", "bytes", "USD", "made", "expires", "row",
    ]  # fmt: skip
    assert [line.split()[:3] for line in lines[1:]] == [
        ["summary", "p1", "acme"], ["embedding", "e1", "acme"],
    ]  # fmt: skip
    assert all(line.endswith("as written") for line in lines[1:])
    assert "two" not in run("artifacts", "list").stdout


def test_the_list_has_the_documented_keys(run: Call) -> None:
    """Each row is an object with the keys that its help names."""
    [found] = json.loads(run("artifacts", "list", "--kind", "summary", "--json").stdout)
    words = run("artifacts", "list", "--help").stdout.partition("JSON keys: ")[2].split(".")[0]
    assert list(found) == words.replace(",", " ").split()
    assert (found["cost_usd"], found["bytes"], found["expires_at"]) == ("0.50", 5, None)


def test_rates_say_what_was_saved(run: Call) -> None:
    """Hits of all look-ups, and the cost of what did not have to be made."""
    lines = run("artifacts", "rates").stdout.splitlines()
    assert lines[1].split() == ["embedding", "e1", "acme", "0", "1", "0.0", "%", "0.00"]
    assert lines[2].split() == ["summary", "p1", "acme", "1", "1", "50.0", "%", "0.50"]
    [found] = json.loads(run("artifacts", "rates", "--json", "--tenant", "acme").stdout)[1:]
    words = run("artifacts", "rates", "--help").stdout.partition("JSON keys: ")[2].split(".")[0]
    assert list(found) == words.replace(",", " ").split()
    assert run("artifacts", "rates", "--tenant", "nobody").stderr == "no look-ups are counted\n"


def test_nothing_is_removed_before_somebody_says_so(run: Call) -> None:
    """A dry run only tells how many."""
    said = run("artifacts", "prune", "--older-than", "30s", "--dry-run")
    assert said.stderr == "would remove 1 artifact; nothing was changed\n"
    assert run("artifacts", "prune", "--kind", "summary").exit_code == 2
    assert run("artifacts", "prune", "--older-than", "30").exit_code == 2
    assert len(json.loads(run("artifacts", "list", "--json").stdout)) == 2


@pytest.mark.parametrize(
    ("which", "left"),
    [
        (["--older-than", "30s"], ["summary"]),
        (["--expired"], ["summary"]),
        (["--kind", "summary"], ["embedding"]),
        (["--kind", "summary", "--only-version", "p2"], ["summary", "embedding"]),
        (["--only-version", "p1"], ["embedding"]),
        (["--kind", "summary", "--tenant", "other"], ["summary", "embedding"]),
    ],
)
def test_each_condition_that_is_given_must_hold(
    run: Call, which: list[str], left: list[str]
) -> None:
    """By age, by time that is over, by kind, by version, by tenant."""
    assert run("artifacts", "prune", *which, "--yes").exit_code == 0
    assert [a["kind"] for a in json.loads(run("artifacts", "list", "--json").stdout)] == left


def test_everything_at_once_has_to_be_said(run: Call) -> None:
    """Without a condition nothing is removed."""
    refused = run("artifacts", "prune", "--yes")
    assert refused.exit_code == 2
    assert "say which" in refused.stderr
