"""What a person sees: the command on a pseudo-terminal."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from agentguard.cli.text import breadth
from tests.cli import world
from tests.cli.world import STEPS

SGR = re.compile(r"\x1b\[[0-9;]*m")
Look = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module", name="look")
def a_terminal(tmp_path_factory: pytest.TempPathFactory) -> Look:
    """Return the command on a terminal, over a record that ended a minute ago."""
    path = tmp_path_factory.mktemp("terminal") / "store.db"
    world.fill(path, world.Clock(dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)))
    return lambda *words, **options: world.on_terminal(
        *words, "--store", f"sqlite:///{path}", **options
    )


def bars(drawn: str) -> dict[int, str]:
    """Return the line of each step in a waterfall, without its colours."""
    lines = SGR.sub("", drawn).splitlines()
    found = [(re.match(r" *(\d+) \w", line), line) for line in lines]
    return {int(match[1]): line for match, line in found if match}


def test_a_run_is_drawn_as_a_waterfall(look: Look) -> None:
    """On a terminal each step is a bar on one axis, with how it ended behind it."""
    code, drawn = look("runs", "show", "r-1")
    lines = bars(drawn)
    assert code == 0
    assert sorted(lines) == sorted(STEPS.values())
    assert lines[STEPS["model"]].count("█") >= 1
    assert lines[STEPS["duplicate"]].rstrip().endswith("duplicate of step 3")


def test_waiting_for_people_is_drawn_pale(look: Look) -> None:
    """A call that waited has a pale stretch before its bar; one that did not has none."""
    lines = bars(look("runs", "show", "r-1")[1])
    assert re.search(r"░+ *█", lines[STEPS["approved"]])
    assert "░" not in lines[STEPS["written"]]


def test_idle_time_is_folded_into_a_mark(look: Look) -> None:
    """A stretch in which nothing worked is a mark that tells its length."""
    assert "┄ 3 min" in SGR.sub("", look("runs", "show", "r-1")[1])


def test_each_try_of_a_retried_call_has_a_bar(look: Look) -> None:
    """Below a call that was retried stands a bar for each try, with its end."""
    drawn = SGR.sub("", look("runs", "show", "r-1")[1])
    tries = [line for line in drawn.splitlines() if "└ attempt" in line]
    assert len(tries) == 3
    assert all("█" in line for line in tries)
    assert "failed retryable: NoEffect" in tries[0]


def test_the_budget_is_drawn_as_meters(look: Look) -> None:
    """Above the waterfall each limit has a meter."""
    assert re.search(r"steps +■+·+ 13 of 20", SGR.sub("", look("runs", "show", "r-1")[1]))


@pytest.mark.parametrize("columns", [80, 110, 200])
@pytest.mark.parametrize(
    "words", [["runs", "show", "r-1"], ["runs", "list"], ["approvals", "list"], ["effects", "list"]]
)
def test_no_line_is_wider_than_the_terminal(look: Look, words: list[str], columns: int) -> None:
    """Tables and waterfalls fit the terminal they are drawn on."""
    _, drawn = look(*words, columns=columns)
    assert max(map(breadth, SGR.sub("", drawn).splitlines())) <= columns


def test_a_narrow_terminal_gets_a_table(look: Look) -> None:
    """Where a waterfall has no room, steps are lines of a table."""
    drawn = SGR.sub("", look("runs", "show", "r-1", columns=50)[1])
    assert "█" not in drawn
    assert re.search(r"^step +", drawn, re.MULTILINE)


def test_the_cost_of_a_run_stays_on_a_narrow_terminal(look: Look) -> None:
    """The list of runs drops other columns first."""
    header = SGR.sub("", look("runs", "list", columns=80)[1]).splitlines()[0]
    assert {"run", "status", "waits", "doubts", "cost", "started"} <= set(header.split())


def test_states_have_colours(look: Look) -> None:
    """A terminal shows failures in red."""
    assert "\x1b[31m" in look("runs", "list")[1]


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_turned_off(look: Look, variables: dict[str, str]) -> None:
    """With NO_COLOR, or on a terminal that knows none, no escape sequence is written."""
    for words in (
        ["runs", "list"],
        ["runs", "show", "r-1"],
        ["runs", "show", "r-1", "--step", "6"],
    ):
        assert "\x1b" not in look(*words, **variables)[1]


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "list"], ["runs", "show", "broken"], ["runs", "watch", "broken"],
        ["runs", "show", "r-1", "--step", str(STEPS["pending"])], ["approvals", "list"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_hostile_text_cannot_steer_this_terminal(look: Look, words: list[str]) -> None:
    """Apart from our own colours nothing unseen is drawn."""
    drawn = SGR.sub("", look(*words)[1])
    assert "\\x" in drawn or "\\u" in drawn or "ap_" in drawn
    assert world.unseen(drawn) == set()


def test_json_on_a_terminal_is_plain(look: Look) -> None:
    """JSON has no colours and no tables, also for a person."""
    assert json.loads(look("runs", "list", "--json")[1])[0]["tenant"] == "acme"


def test_long_answers_are_folded_under_themselves(look: Look) -> None:
    """A long answer goes on below its own beginning, not below its label."""
    drawn = SGR.sub("", look("runs", "show", "r-1", "--step", "3", columns=60)[1])
    lines = drawn.splitlines()
    place = next(at for at, line in enumerate(lines) if line.startswith("idempotency"))
    assert lines[place + 1].startswith(" " * 13)


def test_ids_are_shortened_where_a_beginning_is_enough(look: Look) -> None:
    """On a terminal lists show the beginnings of ids, which commands take."""
    code, drawn = look("approvals", "list")
    name = re.findall(r"ap_\w+", drawn)[0]
    assert (code, len(name)) == (0, 12)
    assert look("approvals", "show", name)[0] == 0


def test_a_person_is_asked_before_a_run_is_cancelled(look: Look) -> None:
    """On a terminal a dangerous command asks; no means that nothing was changed."""
    words = ("runs", "cancel", "r-1", "--by", "ops", "--reason", "enough")
    code, drawn = look(*words, answer="n\n")
    assert code == 1
    assert "This will cancel run r-1 (waiting) for good. Go on? [y/N]" in drawn
    assert "nothing was changed" in drawn


def test_checks_are_drawn_with_their_standing(look: Look) -> None:
    """The doctor's lines are folded, so that nothing a person needs is cut."""
    drawn = SGR.sub("", look("doctor", columns=60)[1])
    assert "opentelemetry-api" in re.sub(r"\s+", "", drawn)


def test_a_store_that_is_missing_is_told_in_plain_text(tmp_path: Path) -> None:
    """A missing store on a terminal is one sentence, exit 1."""
    code, drawn = world.on_terminal("runs", "list", "--store", f"sqlite:///{tmp_path}/a.db")
    assert code == 1
    assert drawn.startswith("agentguard: there is no store at ")
