"""`agentguard slo status|report|override|lift`: what an operator sees, and can do about it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agentguard import ApprovalRequired
from agentguard.cli import main
from agentguard.cli.shell import Shell, _code_of
from tests.cli.world import on_terminal
from tests.enforcement.conftest import Opens
from tests.enforcement.shop import Shop, level

YAML = """\
agent_run:
  workflow: refunds
  slos:
    runs:
      workflow: refunds
      target: 0.9
      last: 20
      min: 5
      demote: {burning: approve, exhausted: approve}
"""
Run = Callable[..., Result]


@pytest.fixture(name="burnt")
def a_burnt_budget(shop: Opens) -> Shop:
    """A shop whose workflow has done well fifteen times and then failed twice, which was enough."""
    opened = shop(level())
    opened.calls_of(15)
    opened.breaks()
    opened.calls_of(5)
    opened.heals()
    return opened


@pytest.fixture(name="run")
def the_command(burnt: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command on the shop's store, in a folder with its configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent_run.yaml").write_text(YAML)

    def call(*words: str) -> Result:
        shell = Shell(store=burnt.url, clock=burnt.clock)
        runner = CliRunner()
        return runner.invoke(_told, list(words), obj=shell)

    return call


class _Told:
    """The command with the exit codes that a shell is told."""

    name = "agentguard"

    def main(self, *args: Any, **options: Any) -> None:
        options.update(standalone_mode=False)
        raise SystemExit(_code_of(lambda: super(type(main), main).main(*args, **options)))


_told: Any = _Told()


def test_status_shows_state_interval_budget_and_stage(run: Run) -> None:
    """One line a level: how it stands, how sure that is, what is left, how fast, where it ends."""
    shown = run("slo", "status")
    [titles, line] = shown.stdout.splitlines()
    assert re.split(r"\s{2,}", titles) == [
        "slo", "over", "state", "now", "good (95 % sure)", "target", "n", "budget left", "burn",
        "last", "open", "window",
    ]  # fmt: skip
    assert re.split(r"\s{2,}", line) == [
        "runs", "workflow:refunds", "burning", "approve", "88.2 % (69.9 to 96.0)", "0.9", "17",
        "-0.18", "1.18", "█" * 15 + "▁" * 2, "3", "last 20",
    ]  # fmt: skip
    assert "agentguard slo override runs --by YOU --reason WHY --hours 1 lifts it" in shown.stderr


def test_status_as_json_has_the_documented_keys(run: Run) -> None:
    """Programs get the same as one object a level; shares are texts, never floats."""
    [found] = json.loads(run("--json", "slo", "status").stdout)
    epilog = " ".join(run("slo", "status", "--help").stdout.split())
    assert all(re.search(rf"\b{key}\b", epilog) for key in found)
    assert (found["sli"], found["low"], found["high"]) == ("0.882353", "0.699440", "0.960272")
    assert (found["stage"], found["budget_left"], found["good"]) == ("approve", "-0.18", 15)


def test_a_check_fails_while_something_burns(run: Run, burnt: Shop) -> None:
    """With --check the exit code is 5 while a level burns, is exhausted or holds autonomy, else 0."""
    assert run("slo", "status", "--check").exit_code == 5
    assert run("slo", "status").exit_code == 0
    burnt.guard.store.transact(lambda tx: tx.run("DELETE FROM slos"))
    assert run("slo", "status", "--check").exit_code == 0


def test_a_report_lists_the_runs_that_spent_the_budget(run: Run, burnt: Shop) -> None:
    """Day by day what was good and bad, and each run that was bad, the newest first."""
    lines = run("slo", "report", "runs", "--days", "2").stdout
    assert "2026-01-05  15 good, 2 bad" in lines
    spent = re.findall(r"failure  run  agentguard runs show (\S+)", lines)
    failed = [run.id for run in burnt.guard.runs.list() if run.status == "failed"]
    assert [found for found in spent if any(r.startswith(found) for r in failed)] == spent
    assert len(spent) == 2
    found = json.loads(run("--json", "slo", "report", "runs", "--days", "2").stdout)
    assert [day["bad"] for day in found["days"]] == [0, 2]
    assert found["spent"][0]["run_id"] == failed[0]


def test_a_report_of_what_is_not_declared_says_what_is(run: Run) -> None:
    """A misspelt name gets a sentence with those that there are."""
    refused = run("slo", "report", "rums")
    assert refused.exit_code == 1
    assert "'rums' is no service level of this configuration, which has runs" in refused.stderr


def test_an_override_from_a_shell_lifts_and_ends(run: Run, burnt: Shop) -> None:
    """A person lifts a demotion for some hours, sees it in the status, and ends it again."""
    who = ("--by", "kim", "--reason", "the bank is back")
    assert run("slo", "override", "runs", "--hours", "2", *who).exit_code == 0
    assert "approve" not in run("slo", "status").stdout
    assert (
        "lifted by kim until 2026-01-05 11:00:00 UTC: the bank is back"
        in run("slo", "status").stderr
    )
    assert burnt.call() == "done pay T-21"
    assert run("slo", "lift", "runs", "--by", "lee", "--reason", "not yet").exit_code == 0
    assert isinstance(burnt.call(), ApprovalRequired)


def test_no_machine_overrides_from_a_shell(run: Run) -> None:
    """An agent's name, no reason and no end are refused."""
    assert run(
        "slo", "override", "runs", "--hours", "2", "--by", "agent:x", "--reason", "y"
    ).exit_code
    assert run("slo", "override", "runs", "--hours", "2", "--by", "kim").exit_code == 2
    assert run("slo", "override", "runs", "--by", "kim", "--reason", "y").exit_code == 2


def test_what_was_taken_away_is_told_where_operators_look(run: Run, burnt: Shop) -> None:
    """`autonomy list` and `runs show` of the run that did it tell the demotion in one line."""
    assert "workflow refunds is at approve: slo runs" in run("autonomy", "list").stderr
    events = [(r.id, e) for r in burnt.guard.runs.list() for e in burnt.guard.runs.events(r.id)]
    [culprit] = [run_id for run_id, event in events if event.kind == "autonomy.changed"]
    shown = run("runs", "show", culprit).stdout
    assert re.search(
        r"autonomy +refunds: auto -> approve, slo runs \w+, \d+ of \d+ outcomes were good", shown
    )


@pytest.mark.slow
@pytest.mark.parametrize("lifted", [False, True])
def test_no_number_is_cut_on_a_terminal_of_eighty_columns(
    run: Run, burnt: Shop, *, lifted: bool
) -> None:
    """What is left of the budget stands there in full, whatever else has to give way."""
    burnt.guard.close()
    store = ("--store", burnt.url, "slo")
    if lifted:
        who = ("--by", "kim", "--reason", "the bank is back")
        assert on_terminal(*store, "override", "runs", "--hours", "2", *who)[0] == 0
    code, drawn = on_terminal(*store, "status", columns=80, NO_COLOR="1")
    titles, line, *_ = drawn.splitlines()
    assert code == 0, drawn
    assert titles.rstrip().endswith("budget left")
    assert re.search(
        r"(auto \(override\)|approve) +88\.2 % \(69\.9 to 96\.0\) .*-0\.18$", line.rstrip()
    )
