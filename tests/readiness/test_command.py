"""`agentguard check`: what a person and a CI see of a project that is ready, and of one that is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agentguard.cli import main
from agentguard.cli.shell import Shell
from agentguard.readiness import CHECKS
from tests.cli.world import on_terminal, unseen
from tests.readiness.shop import GOOD, Shop
from tests.support import ROOT

READY = """\
from decimal import Decimal

from agentguard import *

AGENT = Principal("support", scopes=frozenset({"refunds:write"}))


def paid(arguments, result) -> bool:
    return bool(result)


def find(call):
    return NotHappened()


def void(result) -> None:
    print(result)


@tool_contract(effect="write", scopes=["refunds:write"], timeout=10, isolation="thread",
               facts={"refund_usd": "amount_usd"})
@idempotent(key="refund:{ticket_id}", reconcile=find)
@budget(max_calls=3, max_spend_usd="200", cost="amount_usd")
@verified_by(paid)
@compensated_by(void)
def refund(ticket_id: str, amount_usd: Decimal) -> str:
    return ticket_id
"""
BARE = """\
from typing import TypedDict

from agentguard import Principal, Retry, idempotent, tool_contract

AGENT = Principal("bot")


def keyless_and_undeclared(order_id):
    return order_id


class Reply(TypedDict):
    error: str


@tool_contract(effect="read")
def delete_order(order_id: str) -> str:
    return order_id


@tool_contract(effect="write")
def keyless(order_id: str) -> str:
    return order_id


@tool_contract(effect="write", facts={"refund_usd": "amount_usd"}, retry=Retry(attempts=50))
@idempotent(key="refund:{ticket_id}")
def refund(ticket_id, amount_usd: int) -> Reply:
    return {"error": ticket_id}


@tool_contract(effect="read")
def look_up(order_id: str):
    return order_id


ALL = [keyless_and_undeclared, delete_order, keyless, refund, look_up, AGENT]
"""
NOTHING = """\
agent_run:
  workflow: refund
  loops: "off"
  retry_budget: "off"
  logging:
    trace: none
"""
READY_FILE = GOOD
Run = Callable[..., Result]


@pytest.fixture(name="run")
def the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Return the command in a folder of its own, with two projects beside each other."""
    for name in ("AGENTGUARD_STORE", "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("ready_shop.py").write_text(READY)
    Path("bare_shop.py").write_text(BARE)
    Path("agent_run.yaml").write_text(READY_FILE)
    Path("bare.yaml").write_text(NOTHING)
    yield call
    for module in ("ready_shop", "bare_shop"):
        sys.modules.pop(module, None)


def call(*words: str, shell: Shell | None = None) -> Result:
    """Run `agentguard check` in this process."""
    return CliRunner().invoke(main, ["check", *words], obj=shell or Shell())


def bare(monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    """Grade the project that has nothing."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    return call("--tools", "bare_shop:ALL", "--config", "bare.yaml", *words)


def data(ended: Result) -> dict[str, Any]:
    """Read what was printed as JSON."""
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_a_ready_project_meets_the_minimum_bar(run: Run) -> None:
    """Tools, file, principal and endpoint that have all that is asked for: exit 0 and a summary."""
    ended = run("--tools", "ready_shop")
    assert ended.exit_code == 0, ended.stdout
    minimum = sum(check.level == "minimum" for check in CHECKS)
    scale = len(CHECKS) - minimum
    assert ended.stdout.splitlines()[-1] == (
        f"minimum bar: {minimum} of {minimum}; scale-ready: 0 of {scale}, {scale} unknown"
    )
    assert ended.stderr == ""


def test_a_ready_project_without_runs_is_not_scale_ready(run: Run) -> None:
    """What nobody has seen is unknown, and unknown is below the bar."""
    ended = run("--tools", "ready_shop", "--bar", "scale")
    assert ended.exit_code == 5
    assert ended.stderr.startswith("below the bar (scale): safety.duplicates, ")


def test_a_project_that_has_nothing_fails_every_check_of_the_minimum(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One careless project fails all there is, and the exit code is 5."""
    del run
    ended = bare(monkeypatch, "--format", "json")
    assert ended.exit_code == 5
    minimum = sum(check.level == "minimum" for check in CHECKS)
    assert data(ended)["minimum"] == {"pass": 0, "waived": 0, "unknown": 0, "fail": minimum}


def test_a_store_makes_it_scale_ready(run: Run, tmp_path: Path) -> None:
    """Fifty good runs on record, and the same command passes both bars."""
    shop = Shop(f"sqlite:///{tmp_path}/shop.db").work()
    shop.guard.close()
    shell = Shell(store=f"sqlite:///{tmp_path}/shop.db", clock=shop.clock)
    ended = run("--tools", "ready_shop", "--bar", "scale", shell=shell)
    assert ended.exit_code == 0, ended.stdout
    assert ended.stdout.startswith(
        "1 tool · agent_run.yaml · 50 runs of the last 30 days of refund\n"
    )


def test_no_more_than_the_newest_runs_are_read(run: Run, tmp_path: Path) -> None:
    """With `--newest` the sample is smaller, and it is said of how many."""
    shop = Shop(f"sqlite:///{tmp_path}/shop.db").work(12)
    shop.guard.close()
    shell = Shell(store=f"sqlite:///{tmp_path}/shop.db", clock=shop.clock)
    ended = run("--newest", "10", "--format", "json", shell=shell)
    assert data(ended)["record"] == {"runs": 10, "there": 12, "days": "30.00"}


def test_older_runs_do_not_count(run: Run, tmp_path: Path) -> None:
    """`--since` leaves out what began before; what is left out is not waited for."""
    shop = Shop(f"sqlite:///{tmp_path}/shop.db").work(5)
    shop.guard.close()
    shop.clock.advance(days=2)
    shell = Shell(store=f"sqlite:///{tmp_path}/shop.db", clock=shop.clock)
    assert data(run("--since", "1d", "--format", "json", shell=shell))["record"]["runs"] == 0
    assert data(run("--since", "3d", "--format", "json", shell=shell))["record"]["runs"] == 5


def test_runs_of_other_workflows_do_not_count(run: Run, tmp_path: Path) -> None:
    """The record of one workflow says nothing of another."""
    shop = Shop(f"sqlite:///{tmp_path}/shop.db").work(3)
    with shop.guard.run("triage"):
        shop.clock.advance(1)
    shop.guard.close()
    shell = Shell(store=f"sqlite:///{tmp_path}/shop.db", clock=shop.clock)
    ended = run("--workflow", "triage", "--format", "json", shell=shell)
    assert data(ended)["record"]["there"] == 1


def test_without_tools_nothing_of_them_passes(run: Run, tmp_path: Path) -> None:
    """Checks of tools are unknown without tools, and those that the record knows are named."""
    shop = Shop(f"sqlite:///{tmp_path}/shop.db").work(1)
    shop.guard.close()
    shell = Shell(store=f"sqlite:///{tmp_path}/shop.db", clock=shop.clock)
    found = data(run("--format", "json", shell=shell))["findings"]
    (key,) = [each for each in found if each["id"] == "safety.key"]
    assert (key["status"], key["evidence"]) == (
        "unknown",
        "no tool was given; the record knows refund",
    )
    assert key["action"] == "--tools MODULE[:ATTRIBUTE]"


def test_a_tool_that_only_the_record_knows_is_asked_for(run: Run, tmp_path: Path) -> None:
    """Whoever leaves a tool out of --tools is told that it was called."""
    shop = Shop(f"sqlite:///{tmp_path}/shop.db").work(1)
    shop.guard.close()
    shell = Shell(store=f"sqlite:///{tmp_path}/shop.db", clock=shop.clock)
    found = data(run("--tools", "bare_shop:look_up", "--format", "json", shell=shell))["findings"]
    (other,) = [f for f in found if f["id"] == "safety.declared" and f["tool"] == "refund"]
    assert other["status"] == "unknown"


def test_json_has_the_documented_keys(run: Run) -> None:
    """The keys of the JSON form are those that its help names."""
    ended = run("--tools", "ready_shop", "-o", "json")
    found, told = data(ended), run("--help").stdout
    for key in [*found, *found["findings"][0]]:
        assert key in told
    assert found["met"] is True
    assert found["tools"] == ["refund"]


def test_jsonl_is_a_finding_a_line(run: Run) -> None:
    """Programs that read lines get one finding in each."""
    lines = run("--tools", "ready_shop", "-o", "jsonl").stdout.splitlines()
    assert {json.loads(line)["id"] for line in lines} == {check.id for check in CHECKS}


def test_a_finding_names_tool_file_line_and_the_next_step(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails is told with the place where it stands and what to write there."""
    del run
    text = bare(monkeypatch).stdout
    line = BARE.splitlines().index('@tool_contract(effect="write")') + 1
    assert "fail     safety.undo  Every write has an undo, or says that it has none" in text
    assert (
        f"keyless, refund (bare_shop.py:{line}, :{line + 5}): nobody says how it is undone" in text
    )
    assert "next: @compensated_by(undo), or irreversible=True in @tool_contract" in text


WAIVED = GOOD.replace(
    "  costs:",
    "  check:\n    waive:\n      {}: the gateway in front of it keeps the limit\n  costs:",
)


@pytest.mark.parametrize("name", ["safety.rate", "keyless:safety.rate"])
def test_a_waiver_is_shown_with_its_reason(run: Run, name: str) -> None:
    """What is waived does not count as passed, and does not keep a project below the bar."""
    Path("agent_run.yaml").write_text(WAIVED.replace("{}", name))
    ended = run("--tools", "bare_shop:keyless", "--format", "json")
    (found,) = [f for f in data(ended)["findings"] if f["id"] == "safety.rate"]
    assert (found["status"], found["waived"]) == (
        "waived",
        "the gateway in front of it keeps the limit",
    )
    assert "safety.rate" not in data(ended)["below"]
    text = run("--tools", "bare_shop:keyless").stdout
    assert "waived: the gateway in front of it keeps the limit" in text
    assert "1 waived" in text


def test_a_waiver_of_another_tool_waives_nothing(run: Run) -> None:
    """A waiver holds for the tool that it names, and one that was not needed is told."""
    Path("agent_run.yaml").write_text(WAIVED.replace("{}", "other:safety.rate"))
    ended = run("--tools", "bare_shop:keyless")
    assert "safety.rate" in ended.stderr
    assert "agent_run.yaml: the waiver of other:safety.rate was not needed" in ended.stderr


def test_a_waiver_of_no_check_is_refused(run: Run) -> None:
    """A misspelt waiver is an error, not a silent nothing."""
    Path("agent_run.yaml").write_text(WAIVED.replace("{}", "safety.rat"))
    ended = run("--tools", "ready_shop")
    assert ended.exit_code == 5
    assert "the waiver of safety.rat is of no check that there is" in ended.stderr
    assert data(run("--tools", "ready_shop", "--format", "json"))["met"] is False


def test_a_waiver_needs_a_reason(run: Run) -> None:
    """A reason of a few letters is none."""
    text = WAIVED.replace("{}", "safety.rate").replace(
        "the gateway in front of it keeps the limit", "ok"
    )
    Path("agent_run.yaml").write_text(text)
    ended = run("--tools", "ready_shop")
    assert ended.exit_code == 5
    assert "agent_run.yaml:" in ended.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--config", "nothing.yaml"), 5),
        (("--since", "yesterday"), 2),
        (("--tools", "no_such_module"), 1),
        (("--store", "sqlite:///nothing.db"), 1),
    ],
)
def test_what_cannot_be_read_is_one_sentence(run: Run, words: tuple[str, ...], code: int) -> None:
    """A missing file, module or store, or no time, is told in words with the right exit code."""
    ended = run(*words)
    assert ended.exit_code == code
    assert ended.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import sys\nsys.exit(0)\n", "odd_shop.py:2): put what runs it under"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--x'])\n", "odd_shop.py:2): put"),
        ("import os\n\nos.environ['NO_SUCH_KEY']\n", "KeyError: 'NO_SUCH_KEY' ("),
        ("import no_such_thing\n", "No module named 'no_such_thing' ("),
        ("def f(:\n", "SyntaxError: invalid syntax (odd_shop.py, line 1)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_no_pass(run: Run, text: str, told: str) -> None:
    """Whatever stops an import, also one that ends the process with 0, is a failure with its place."""
    Path("odd_shop.py").write_text(text)
    ended = run("--tools", "odd_shop")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert told in ended.stderr


def test_tools_may_stand_in_a_dict(run: Run) -> None:
    """A table of tools by name stands for the tools."""
    Path("table_shop.py").write_text(
        f"{BARE}\nTABLE = {{each.__name__: each for each in ALL[1:5]}}\n"
    )
    found = data(run("--tools", "table_shop:TABLE", "--format", "json"))
    assert found["tools"] == ["delete_order", "keyless", "refund", "look_up"]
    sys.modules.pop("table_shop")


def test_what_a_module_prints_is_no_data(run: Run) -> None:
    """A module that prints when it is imported does not spoil JSON."""
    Path("loud_shop.py").write_text(f"print('loading')\n{READY}")
    ended = run("--tools", "loud_shop", "--format", "json")
    assert data(ended)["met"] is True
    assert ended.stderr == "loading\n"
    sys.modules.pop("loud_shop")


@pytest.mark.parametrize(
    "name", ["./shop.py", "shop/tools.py", "shop\\tools", "shop.py", "C:\\shop.py"]
)
def test_a_path_is_no_module(run: Run, name: str) -> None:
    """Whoever names a file is told how a module is named."""
    ended = run("--tools", name)
    assert ended.exit_code == 2
    assert "MODULE[:ATTRIBUTE], such as billing.tools for billing/tools.py" in ended.stderr


def test_a_file_in_a_folder_with_a_blank_has_its_place_in_sarif(run: Run) -> None:
    """Places are URIs: what may not stand in one is written as one writes it there."""
    Path("my shop #1").mkdir()
    Path("my shop #1/odd.py").write_text(BARE)
    log = data(run("--tools", "my shop #1.odd:keyless", "--format", "sarif"))
    places = {
        r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for r in log["runs"][0]["results"]
    }
    assert "my%20shop%20%231/odd.py" in places
    sys.modules.pop("my shop #1.odd")


def test_sarif_has_what_code_hosts_need(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version, tool, a rule with help for each check, and results that point to it and into a file."""
    del run
    log = data(bare(monkeypatch, "--format", "sarif"))
    assert log["version"] == "2.1.0"
    (only,) = log["runs"]
    driver = only["tool"]["driver"]
    assert driver["name"] == "agentguard"
    assert [rule["id"] for rule in driver["rules"]] == [f"agentguard/{each.id}" for each in CHECKS]
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]
        assert rule["fullDescription"]["text"]
        assert rule["help"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning")
    assert only["results"]
    for result in only["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        (place,) = result["locations"]
        physical = place["physicalLocation"]
        assert not Path(physical["artifactLocation"]["uri"]).is_absolute()
        assert Path(physical["artifactLocation"]["uri"]).is_file()
        assert physical["region"]["startLine"] >= 1
        assert result["partialFingerprints"]["agentguard/v1"]


def test_sarif_tells_apart_what_fails_is_unknown_and_is_waived(run: Run) -> None:
    """A failed minimum is an error, an unknown is a note, a waiver is a suppression with its reason."""
    Path("agent_run.yaml").write_text(WAIVED.replace("{}", "safety.rate"))
    ended = run("--tools", "bare_shop:keyless", "--format", "sarif")
    results = {
        r["ruleId"].removeprefix("agentguard/"): r for r in data(ended)["runs"][0]["results"]
    }
    assert results["safety.undo"]["level"] == "error"
    assert results["cost.capped"]["level"] == "note"
    assert results["safety.rate"]["suppressions"] == [
        {"kind": "external", "justification": "the gateway in front of it keeps the limit"}
    ]
    assert "suppressions" not in results["safety.undo"]
    assert "safety.output" not in results


def test_fingerprints_stay_when_lines_move(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding is the same one after a comment was put above its tool."""
    before = _fingerprints(run())
    Path("agent_run.yaml").write_text("# a comment\n" + READY_FILE)
    assert _fingerprints(call()) == before
    assert len(set(before)) == len(before)
    del monkeypatch


def test_equal_tools_in_two_folders_are_two_findings(run: Run) -> None:
    """What is graded together is told apart, also where files and tools are named alike."""
    for folder in ("one", "two"):
        Path(folder).mkdir()
        Path(folder, "tools.py").write_text(BARE)
    names = [
        f"{folder}.tools:{tool}" for folder in ("one", "two") for tool in ("keyless", "refund")
    ]
    words = [word for name in names for word in ("--tools", name)]
    log = data(run(*words, "--format", "sarif"))
    found = [r["partialFingerprints"]["agentguard/v1"] for r in log["runs"][0]["results"]]
    assert len(set(found)) == len(found)
    for folder in ("one", "two"):
        sys.modules.pop(f"{folder}.tools")


def _fingerprints(ended: Result) -> list[str]:
    del ended
    log = data(call("--tools", "bare_shop:ALL", "--format", "sarif"))
    return [r["partialFingerprints"]["agentguard/v1"] for r in log["runs"][0]["results"]]


def test_a_hostile_name_steers_nothing(run: Run) -> None:
    """Names in what is graded are escaped before they are printed."""
    Path("evil_shop.py").write_text(
        "from agentguard import tool_contract\n"
        '@tool_contract(effect="write", name="pay\\x1b[2J\\u202e")\n'
        "def pay(n: int) -> int: return n\n"
    )
    assert unseen(run("--tools", "evil_shop").stdout) == set()
    sys.modules.pop("evil_shop")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("then", "status"), [("", "fail"), ("p.add_span_processor(SpanProcessor())\n", "pass")]
)
def test_a_provider_that_gives_spans_to_nobody_is_no_collector(
    run: Run, then: str, status: str
) -> None:
    """A provider without a processor drops what it gets, whatever the environment says."""
    del run
    Path("traced.py").write_text(
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import SpanProcessor, TracerProvider\n"
        f"p = TracerProvider()\n{then}trace.set_tracer_provider(p)\n"
    )
    words = [sys.executable, "-m", "agentguard", "check", "--tools", "traced", "-o", "json"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    found = {f["id"]: f for f in json.loads(ended.stdout)["findings"]}
    assert found["observability.exporter"]["status"] == status
    assert found["observability.exporter"]["evidence"].startswith("TracerProvider")


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_lines_are_folded_and_coloured(run: Run, columns: int) -> None:
    """A terminal gets colour and lines that fit; NO_COLOR takes the colour away."""
    del run
    code, drawn = on_terminal("check", "--tools", "ready_shop", columns=columns)
    assert code == 0, drawn
    assert "\x1b[32m" in drawn
    code, plain = on_terminal("check", "--tools", "ready_shop", columns=columns, NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert max(map(len, plain.splitlines())) <= columns


def test_the_table_of_all_checks_is_in_the_how_to() -> None:
    """The page shows each check as the code has it: bar, title and what counts."""
    page = (ROOT / "docs" / "how-to" / "readiness.md").read_text(encoding="utf-8")
    for check in CHECKS:
        bar = "scale-ready" if check.level == "scale" else "minimum"
        assert f"| `{check.id}` | {bar} | {check.title}. {check.why} |" in page, check.id
