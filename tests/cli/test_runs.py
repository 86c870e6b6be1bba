"""`agentguard runs`: lists, pages, writes, watching, cancelling."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from agentguard import Principal
from agentguard.cli import watching
from agentguard.cli.shapes import EffectJson, RunJson, StepJson
from tests.cli import world
from tests.cli.conftest import Call
from tests.cli.world import STEPS


def line_of(text: str, start: str) -> str:
    """Return the line of a printout that begins with *start*."""
    return next(line for line in text.splitlines() if line.strip().split("  ")[0] == start)


def test_the_list_shows_the_newest_run_first(run: Call) -> None:
    """`runs list` puts the run that began last on top."""
    lines = run("runs", "list").stdout.splitlines()
    assert lines[0].split()[:3] == ["run", "workflow", "status"]
    assert lines[-1].startswith("r-1 ")


def test_the_list_always_shows_what_a_run_cost(run: Call) -> None:
    """Each line of `runs list` has the cost, and counts what waits and what is in doubt."""
    row = line_of(run("runs", "list").stdout, "r-1").split()
    assert row[2:-3] == ["waiting", "2", "13", "5", "2", "2", "1", "$0.011"]


def test_the_list_as_json_has_the_documented_keys(run: Call) -> None:
    """`runs list -o json` is one array whose objects have exactly the documented keys."""
    found = json.loads(run("runs", "list", "-o", "json").stdout)
    assert {tuple(item) for item in found} == {tuple(RunJson.__annotations__)}
    assert found[-1]["spent_usd"] == "0.011"


def test_the_list_as_jsonl_is_one_object_a_line(run: Call) -> None:
    """`runs list -o jsonl` prints each run on a line of its own."""
    lines = run("runs", "list", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines][-1] == "r-1"
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--status", "failed"], ["broken"]),
        (["--limit", "1", "--status", "succeeded", "--tenant", "default"], ["busy"]),
        (["--tenant", "acme"], ["elsewhere"]),
    ],
)
def test_the_list_can_be_narrowed(run: Call, words: list[str], expected: list[str]) -> None:
    """`--status`, `--tenant` and `--limit` leave out what was not asked for."""
    found = json.loads(run("runs", "list", "--json", *words).stdout)
    assert [item["id"] for item in found] == expected


def test_an_empty_list_tells_the_next_command(tmp_path: Path, clock: world.Clock) -> None:
    """A store without runs says on stderr how to get one, and stdout stays empty."""
    world.guard_of(tmp_path / "new.db", clock).close()
    ended = world.call(tmp_path / "new.db", clock, "runs", "list")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert "agentguard demo" in ended.stderr


def test_an_empty_choice_tells_how_to_see_more(run: Call) -> None:
    """A filter that fits nothing says how to see everything."""
    assert "agentguard runs list shows all" in run("runs", "list", "--status", "halted").stderr


def test_a_run_is_shown_with_its_budget_and_steps(run: Call) -> None:
    """`runs show` without a terminal prints who, how much of the budget, and a line for each step."""
    text = run("runs", "show", "r-1").stdout
    assert line_of(text, "status").endswith(" waiting, part 2")
    assert line_of(text, "agent").endswith("support on behalf of dana@shop")
    assert "13 of 20" in line_of(text, "steps")
    assert "$0.011 of $0.40" in line_of(text, "cost")
    assert line_of(text, f"{STEPS['pending']}").split()[1:3] == ["write", "refund"]
    assert "duplicate of step 3" in text
    assert "3 attempts" in text


def test_a_run_says_how_long_people_were_waited_for(run: Call) -> None:
    """Calls that waited side by side count once."""
    assert "of it 2 min 51 s waiting for people" in run("runs", "show", "r-1").stdout


def test_a_run_names_the_commands_that_go_on(run: Call) -> None:
    """`runs show` ends with the commands for what waits and what is in doubt."""
    text = run("runs", "show", "r-1").stdout
    assert f"in doubt  step {STEPS['doubt']}: agentguard effects show ag1_" in text
    assert f"waits     step {STEPS['pending']}: agentguard approvals show ap_" in text


def test_a_call_over_the_budget_is_told(run: Call) -> None:
    """A call that a limit refused is shown below the steps."""
    told = "max_steps is 2 and 2 is used, so a call was not started"
    assert told in run("runs", "show", "busy").stdout


def test_a_failed_run_shows_its_error(run: Call) -> None:
    """The error that ended a run stands in its header, escaped."""
    assert r"ValueError: pay\x1b[2J" in line_of(run("runs", "show", "broken").stdout, "error")


def test_a_run_as_json_has_its_steps_and_stops(run: Call) -> None:
    """`runs show -o json` is the run's object with its steps and refused calls."""
    found = json.loads(run("runs", "show", "r-1", "-o", "json").stdout)
    besides = ["timeline", "stops", "costs", "plan", "verdicts", "autonomy", "routing"]
    assert [*found] == [*RunJson.__annotations__, *besides]
    assert {tuple(step) for step in found["timeline"]} == {tuple(StepJson.__annotations__)}
    assert found["limits"]["max_spend_usd"] == "0.40"
    assert json.loads(run("runs", "show", "busy", "--json").stdout)["stops"][0]["limit"] == "2"


def test_a_run_as_jsonl_is_one_line(run: Call) -> None:
    """`runs show -o jsonl` prints the same object on one line."""
    text = run("runs", "show", "r-1", "-o", "jsonl").stdout
    assert text.count("\n") == 1
    assert json.loads(text)["id"] == "r-1"


def test_the_documented_keys_stand_in_the_help(run: Call) -> None:
    """`--help` lists the keys of the JSON."""
    said = " ".join(run("runs", "list", "--help").stdout.split())
    assert f"JSON keys: {', '.join(RunJson.__annotations__)}." in said


def test_a_beginning_of_an_id_is_enough(run: Call) -> None:
    """A run is found by the beginning of its id."""
    assert "broken" in run("runs", "show", "bro").stdout


def test_an_ambiguous_beginning_names_the_candidates(run: Call) -> None:
    """A beginning that fits several runs is a failure that lists them."""
    ended = run("runs", "show", "b")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "give more of it: broken, busy" in ended.stderr


def test_one_id_in_two_tenants_asks_for_the_tenant(
    run: Call, store: Path, clock: world.Clock
) -> None:
    """The same run id in another tenant is told apart by `--tenant`."""
    guard = world.guard_of(store, clock)
    with guard.run("w", run_id="busy", principal=Principal(tenant="acme")):
        pass
    guard.close()
    assert "busy, busy --tenant acme" in run("runs", "show", "busy").stderr
    assert run("--tenant", "acme", "runs", "show", "busy").exit_code == 0


def test_an_unknown_run_is_a_failure(run: Call) -> None:
    """A run that is not there is one sentence on stderr and exit 1."""
    ended = run("runs", "show", "nobody")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == "agentguard: there is no run 'nobody' in this store\n"


def test_all_writes_of_a_run_can_be_listed(run: Call) -> None:
    """`--writes` lists what was written, may have been, or waits, in the order of steps."""
    found = json.loads(run("runs", "show", "r-1", "--writes", "--json").stdout)
    assert {tuple(item) for item in found} == {tuple(EffectJson.__annotations__)}
    listed = [(item["step"], item["state"]) for item in found]
    assert (listed[3], listed[-1]) == ((8, "denied"), (13, "in_doubt"))


def test_a_run_without_writes_says_so(run: Call) -> None:
    """`--writes` of a run that only read is told in a sentence."""
    assert "busy wrote nothing" in run("runs", "show", "busy", "--writes").stderr


def test_two_questions_at_once_are_refused(run: Call) -> None:
    """`--step` and `--writes` together are a usage error."""
    assert run("runs", "show", "r-1", "--step", "1", "--writes").exit_code == 2


# Watching.


def test_watching_a_run_that_ended_prints_its_events(run: Call) -> None:
    """`runs watch` prints a line an event; its exit code says whether the run succeeded."""
    assert run("runs", "watch", "busy").exit_code == 0
    ended = run("runs", "watch", "broken")
    assert ended.exit_code == 1
    assert [line.split()[1] for line in ended.stdout.splitlines()] == [
        "run.started",
        "run.finished",
    ]


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_watching_as_json_is_one_event_a_line(run: Call, form: str) -> None:
    """`runs watch -o json` prints each event as an object on a line of its own."""
    events = [
        json.loads(line) for line in run("runs", "watch", "busy", "-o", form).stdout.splitlines()
    ]
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5]
    assert [*events[0]] == [
        "run_id", "seq", "at", "step", "kind", "actor", "data", "content", "hash",
    ]  # fmt: skip


def test_watching_follows_what_happens_meanwhile(
    run: Call, store: Path, clock: world.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that come while `runs watch` looks are printed, and the end of the run ends it."""

    def go_on(_seconds: float) -> None:
        guard = world.guard_of(store, clock)
        guard.runs.cancel("r-1", by="ops", reason="enough")
        guard.close()

    monkeypatch.setattr(watching, "sleep", go_on)
    ended = run("runs", "watch", "r-1")
    assert ended.exit_code == 1
    assert "run.finished        aborted, cancelled  by ops" in ended.stdout
    assert "run r-1 is cancelled: enough" in ended.stderr
    assert "waits for a person" in ended.stderr


def test_watching_a_run_that_waits_ends_with_4(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that still waits when the time is over is exit 4."""
    seconds = iter(range(100))
    monkeypatch.setattr(watching, "clock", lambda: float(next(seconds)))
    monkeypatch.setattr(watching, "sleep", lambda _seconds: None)
    ended = run("runs", "watch", "r-1", "--timeout", "3")
    assert ended.exit_code == 4
    assert "run r-1 is still waiting" in ended.stderr


# Cancelling.


def test_cancelling_needs_a_yes_where_nobody_can_be_asked(run: Call) -> None:
    """`runs cancel` without a terminal does nothing unless `--yes` is given."""
    ended = run("runs", "cancel", "r-1", "--by", "ops", "--reason", "enough")
    assert ended.exit_code == 2
    assert "--yes" in ended.stderr
    assert "waiting" in run("runs", "show", "r-1").stdout


def test_a_dry_run_changes_nothing(run: Call) -> None:
    """`runs cancel --dry-run` says what it would do."""
    ended = run("runs", "cancel", "r-1", "--by", "ops", "--reason", "enough", "--dry-run")
    assert (ended.exit_code, ended.stderr) == (
        0,
        "would cancel run r-1 (waiting) for good; nothing was changed\n",
    )


def test_a_cancelled_run_stays_cancelled(run: Call) -> None:
    """`runs cancel` stops the run for good; once more is a failure."""
    words = ("runs", "cancel", "r-1", "--by", "ops", "--reason", "enough", "--yes")
    assert run(*words).exit_code == 0
    assert json.loads(run("runs", "show", "r-1", "--json").stdout)["status"] == "cancelled"
    assert run(*words).exit_code == 1


def test_cancelling_needs_a_person_and_a_reason(run: Call) -> None:
    """`runs cancel` without `--by` or `--reason` is a usage error."""
    assert run("runs", "cancel", "r-1", "--reason", "x", "--yes").exit_code == 2
    assert run("runs", "cancel", "r-1", "--by", "ops", "--yes").exit_code == 2


def test_money_is_never_a_float(run: Call) -> None:
    """Money in JSON is text that is exactly the amount."""
    found = json.loads(run("runs", "show", "r-1", "--json").stdout)
    budgets = found["timeline"][STEPS["approved"] - 1]["budgets"]
    assert Decimal(budgets[0]["usd"]) == Decimal("75.50")
