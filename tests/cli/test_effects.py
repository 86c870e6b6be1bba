"""`agentguard effects`: the ledger, and rulings on what is in doubt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentguard.cli.shapes import EffectJson
from tests.cli import world
from tests.cli.conftest import Call

RULING = ("--by", "ops", "--reason", "seen in the bank")


def doubtful(run: Call) -> dict[str, Any]:
    """Return the effect in doubt."""
    found: list[dict[str, Any]] = json.loads(
        run("effects", "list", "--state", "in_doubt", "--json").stdout
    )
    return found[0]


def test_the_ledger_lists_states_and_reasons(run: Call) -> None:
    """`effects list` shows each effect with its state, and why it is in doubt."""
    lines = run("effects", "list").stdout.splitlines()
    assert lines[0].split()[:4] == ["effect", "tool", "state", "why"]
    assert any("in doubt           error unclassified  r-1" in line for line in lines)


def test_the_ledger_as_json_has_the_documented_keys(run: Call) -> None:
    """`effects list` as json and jsonl gives the documented keys."""
    found = json.loads(run("effects", "list", "-o", "json").stdout)
    assert {tuple(item) for item in found} == {tuple(EffectJson.__annotations__)}
    lines = run("effects", "list", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == found


def test_the_ledger_can_be_narrowed(run: Call) -> None:
    """`--state`, `--run` and `--limit` leave out what was not asked for."""
    words = ("--state", "succeeded", "--run", "r-1", "--limit", "2", "--json")
    found = json.loads(run("effects", "list", *words).stdout)
    assert [item["state"] for item in found] == ["succeeded", "succeeded"]


def test_a_run_is_named_by_its_beginning_too(run: Call) -> None:
    """`--run` takes a beginning as everything else does, and refuses an unknown run."""
    assert json.loads(run("effects", "list", "--run", "r-", "--json").stdout)
    assert run("effects", "list", "--run", "nobody").exit_code == 1


def test_an_empty_choice_tells_the_next_command(run: Call) -> None:
    """A state that no effect has is a sentence on stderr."""
    ended = run("effects", "list", "--state", "failed_final")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr == "no effect is failed final; agentguard runs list shows runs\n"


def test_a_doubt_tells_how_to_rule(run: Call) -> None:
    """`effects show` of a doubt prints the three commands that rule on it."""
    name = doubtful(run)["id"]
    text = run("effects", "show", name[:10]).stdout
    for ruling in ("happened", "not_happened", "failed"):
        assert f"agentguard effects resolve {name[:12]} {ruling} --by YOU --reason WHY" in text


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_an_effect_as_json_is_one_object(run: Call, form: str) -> None:
    """`effects show` as json and jsonl prints the documented keys."""
    found = json.loads(run("effects", "show", doubtful(run)["id"], "-o", form).stdout)
    assert tuple(found) == tuple(EffectJson.__annotations__)
    assert found["error"]["message"] == "connection reset"


def test_an_ambiguous_beginning_names_the_candidates(run: Call) -> None:
    """A beginning that fits several effects rules on none."""
    ended = run("effects", "resolve", "ag1_", "happened", *RULING)
    assert ended.exit_code == 1
    assert "give more of it: ag1_" in ended.stderr


@pytest.mark.parametrize(
    ("ruling", "state"),
    [("happened", "succeeded"), ("not_happened", "failed_retryable"), ("failed", "failed_final")],
)
def test_a_ruling_ends_the_doubt(run: Call, ruling: str, state: str) -> None:
    """Each ruling leads to its state, and with -o json the effect is printed."""
    name = doubtful(run)["id"]
    ended = run("effects", "resolve", name, ruling, *RULING, "--json")
    assert ended.exit_code == 0
    assert json.loads(ended.stdout)["state"] == state
    assert run("effects", "resolve", name, ruling, *RULING).exit_code == 3


def test_a_result_can_be_given_with_the_ruling(run: Call) -> None:
    """`--result` is what later callers get."""
    name = doubtful(run)["id"]
    run("effects", "resolve", name, "happened", *RULING, "--result", '{"id": "rf_1"}')
    assert json.loads(run("effects", "show", name, "--json").stdout)["result"] == {"id": "rf_1"}


@pytest.mark.parametrize(
    "words",
    [
        ["happened", "--by", "ops"],
        ["happened", "--reason", "x"],
        ["perhaps", *RULING],
        ["failed", *RULING, "--result", "1"],
        ["happened", *RULING, "--result", "{"],
        ["happened", *RULING, "--result", '{"a": 1, "a": 2}'],
    ],
)
def test_a_ruling_that_says_too_little_is_a_usage_error(run: Call, words: list[str]) -> None:
    """Without person, reason or readable JSON there is no ruling."""
    name = doubtful(run)["id"]
    assert run("effects", "resolve", name, *words).exit_code == 2
    assert doubtful(run)["id"] == name


def test_a_new_store_has_no_effects(tmp_path: Path, clock: world.Clock) -> None:
    """An empty ledger says so."""
    world.guard_of(tmp_path / "new.db", clock).close()
    assert "no effects yet" in world.call(tmp_path / "new.db", clock, "effects", "list").stderr
