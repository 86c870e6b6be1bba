"""`agentguard costs`: what workflows spend, by workflow, by model and by tool."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from agentguard import Guard, Principal, budget, idempotent, tool_contract, verified_by
from agentguard.cli.costs import NamedSpendingJson, SpendingJson
from agentguard.config import loads
from tests.cli import world
from tests.cli.conftest import Call

PEOPLE = "agent_run:\n  costs: {human_usd_per_hour: 60}\n"


@tool_contract(effect="write")
@idempotent(key="{ticket}")
@budget(cost="0.50")
@verified_by(lambda _arguments, _result: True)
def repay(ticket: str) -> str:
    """Pay half a dollar, and have it confirmed."""
    return ticket


def ask(guard: Guard, workflow: str, model: str = "m", **more: object) -> None:
    """Make a run that asks a model for a dollar and does what is wanted besides."""
    principal = Principal(tenant=str(more.get("tenant", "default")))
    with contextlib.suppress(ValueError), guard.run(workflow, principal=principal) as run:
        call = run.model_started(model=model, messages=["?"], prompt=("refund", "7"))
        run.model_finished(call, output="!", input_tokens=1_000_000, cached_tokens=250_000)
        if "ticket" in more:
            repay(str(more["ticket"]))
        if "minutes" in more:
            run.add_human_minutes(str(more["minutes"]), by="ann")
        if "fails" in more:
            raise ValueError


@pytest.fixture(name="costs")
def the_command(tmp_path: Path) -> Call:
    """The command on a store with two workflows."""
    clock, path = world.Clock(), tmp_path / "spent.db"
    guard = Guard(f"sqlite:///{path}", config=loads(PEOPLE), prices={"m": ("1", "1")}, clock=clock)
    ask(guard, "old")
    clock.tick(40 * 86_400)
    ask(guard, "refunds", ticket="T-1")
    ask(guard, "refunds", ticket="T-2", minutes=2)
    ask(guard, "refunds", fails=True)
    ask(guard, "triage", model="stranger")
    guard.close()
    return lambda *words, **options: world.call(path, clock, "costs", *words, **options)


def row(text: str, begins: str) -> list[str]:
    """The cells of the line that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(begins))
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_a_row_for_each_workflow(costs: Call) -> None:
    """Two of three refunds succeeded, both verified: six dollars for two successes."""
    shown = costs().stdout
    assert row(shown, "workflow") == [
        "workflow", "runs", "succeeded", "verified", "per verified", "per succeeded", "spent", "work",
        "rework", "waiting", "retries", "median", "p95", "cached", "artifacts",
    ]  # fmt: skip
    assert row(shown, "refunds") == [
        "refunds", "3", "2", "2", "$3.00", "$3.00", "$6.00", "$3.00", "$1.00", "$2.00", "$0.00",
        "$2.50", "$3.50", "25 %", "-",
    ]  # fmt: skip


def test_what_is_not_known_is_no_zero(costs: Call) -> None:
    """A workflow whose model nobody has priced shows nothing where others show amounts."""
    assert row(costs().stdout, "triage") == [
        "triage", "1", "1", "0", "-", "-", "-", "-", "-", "-", "-", "-", "-", "25 %", "-",
    ]  # fmt: skip
    (found,) = json.loads(costs("--workflow", "triage", "-o", "json").stdout)
    assert (found["usd"], found["per_completed_usd"], found["complete"]) == (None, None, False)


def test_what_is_known_in_part_is_the_least(tmp_path: Path) -> None:
    """Amounts that miss something say so."""
    clock, path = world.Clock(), tmp_path / "spent.db"
    guard = Guard(f"sqlite:///{path}", prices={"m": ("1", "1")}, clock=clock)
    ask(guard, "w", minutes=1)
    guard.close()
    shown = row(world.call(path, clock, "costs").stdout, "w ")
    assert shown[4:9] == ["-", *["at least $1.00"] * 3, "-"]


def test_json_has_the_documented_keys(costs: Call) -> None:
    """As `--help` names them; money is text."""
    found = json.loads(costs("-o", "json").stdout)
    assert [tuple(item) for item in found] == [tuple(SpendingJson.__annotations__)] * 2
    assert found[0]["per_verified_usd"] == "3.00"
    named = [json.loads(line) for line in costs("--by", "tool", "-o", "jsonl").stdout.splitlines()]
    assert {tuple(item) for item in named} == {tuple(NamedSpendingJson.__annotations__)}
    help_text = " ".join(costs("--help").stdout.split())
    assert all(key in help_text for key in SpendingJson.__annotations__)
    assert "divided by those of them that a verifier confirmed" in help_text


def test_a_window_leaves_out_what_is_older(costs: Call) -> None:
    """Thirty days unless something else is said; the newest runs of each workflow by number."""
    assert "old" not in costs().stdout
    assert row(costs("--since", "90d").stdout, "old")[1] == "1"
    assert [row(costs("--last", "2").stdout, name)[1] for name in ("old", "refunds")] == ["1", "2"]
    ended = costs("--since", "yesterday")
    assert ended.exit_code == 2
    assert "--since='yesterday': write a number and a unit" in ended.stderr


def test_models_and_tools_have_rows_of_their_own(costs: Call) -> None:
    """By model with its tokens; by tool with what belongs to no call in a row without a name."""
    by_model, by_tool = costs("--by", "model").stdout, costs("--by", "tool").stdout
    assert row(by_model, "m ") == ["m", "3", "$3.00", "$2.00", "$1.00", "3000000", "25 %", "0"]
    assert row(by_model, "stranger") == ["stranger", "1", "-", "-", "-", "1000000", "25 %", "0"]
    assert row(by_tool, "repay") == ["repay", "2", "$1.00", "$1.00", "$0.00", "$0.00", "$0.00"]
    assert row(by_tool, "(outside")[1:] == ["1", "$2.00", "$0.00", "$0.00", "$2.00", "$0.00"]


def test_tenants_have_rows_of_their_own(tmp_path: Path) -> None:
    """Where there is more than one tenant, a column says whose row it is."""
    clock, path = world.Clock(), tmp_path / "spent.db"
    guard = Guard(f"sqlite:///{path}", prices={"m": ("1", "1")}, clock=clock)
    ask(guard, "w", tenant="acme")
    ask(guard, "w", tenant="globex", fails=True)
    guard.close()
    shown = world.call(path, clock, "costs").stdout
    assert row(shown, "acme")[:4] == ["acme", "w", "1", "1"]
    assert row(shown, "globex")[:4] == ["globex", "w", "1", "0"]
    own = world.call(path, clock, "costs", "--tenant", "acme").stdout
    assert "globex" not in own


def test_an_empty_store_says_what_to_look_at(tmp_path: Path) -> None:
    """No row is no error."""
    path, clock = tmp_path / "empty.db", world.Clock()
    Guard(f"sqlite:///{path}", clock=clock).close()
    ended = world.call(path, clock, "costs")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert "no runs within 30d; agentguard runs list" in ended.stderr


def test_a_page_of_a_run_names_prices_and_prompts(tmp_path: Path) -> None:
    """`runs show` says who said what it cost, and with which prompt a model was asked."""
    clock, path = world.Clock(), tmp_path / "spent.db"
    guard = Guard(f"sqlite:///{path}", prices={"m": ("1", "1")}, clock=clock)
    ask(guard, "w")
    (run,) = guard.runs.list()
    version = guard.runs.events(run.id)[1].data["price_version"]
    guard.close()
    page = world.call(path, clock, "runs", "show", run.id).stdout
    assert row(page, "prices") == ["prices", f"table {version}"]
    assert row(page, "cache") == ["cache", "250000 of 1000000 input tokens, 25 %"]
    step = world.call(path, clock, "runs", "show", run.id, "--step", "1").stdout
    assert "model m, prompt refund@7" in step
    assert f"(250000 cached), 0 out, price of table {version}" in step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "columns"), [("workflow", 80), ("model", 80), ("tool", 80), ("workflow", 40)]
)
def test_no_amount_is_cut_on_a_terminal(tmp_path: Path, by: str, columns: int) -> None:
    """What is not wholly known takes room, and the amounts that matter most stand there in full."""
    url = f"sqlite:///{tmp_path}/spent.db"
    with contextlib.closing(Guard(url, prices={"m": ("123.4567", "1")})) as guard:
        for number, model in enumerate(("m", "m", "stranger")):
            ask(guard, "refund_and_close_ticket", model, ticket=f"T-{number}")
    words = ("--store", url, "costs", "--by", by)
    code, drawn = world.on_terminal(*words, columns=columns, NO_COLOR="1")
    assert code == 0, drawn
    titles, *lines = drawn.splitlines()
    wanted = {"workflow": "at least $248.4134", "model": "$246.9134", "tool": "$1.50"}
    assert wanted[by] in "".join(lines)
    assert columns < 80 or max(map(len, (titles, *lines))) <= columns
    assert "spent" in drawn
