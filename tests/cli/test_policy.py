"""`agentguard policy`: configuration files before anybody runs with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call

GOOD = """\
agent_run:
  workflow: refund
  max_steps: 10
  max_spend_usd: 0.40
  approvals:
    refund_usd_over: 50
"""
TOOLS = """\
from agentguard import idempotent, tool_contract

@tool_contract(effect="write", facts={"refund_usd": "amount"})
@idempotent(key="{amount}")
def refund(amount: int) -> int: return amount

@tool_contract(effect="write")
def keyless(amount: int) -> int: return amount

both = [refund, keyless]
"""


@pytest.fixture(name="file", autouse=True)
def a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a configuration and a module of tools."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop_tools.py").write_text(TOOLS)
    (tmp_path / "agent_run.yaml").write_text(GOOD)
    return tmp_path / "agent_run.yaml"


def test_a_good_file_tells_what_it_rules(run: Call) -> None:
    """`policy check` of a good file prints limits and thresholds, exit 0."""
    ended = run("policy", "check", "agent_run.yaml")
    assert ended.exit_code == 0
    assert "max_steps 10, max_spend_usd $0.40" in ended.stdout
    assert "refund_usd over 50" in ended.stdout


def test_thresholds_without_tools_are_said_to_be_unchecked(run: Call) -> None:
    """Without `--tools` nobody knows whether a tool declares the fact, and the command says so."""
    assert "--tools MODULE[:ATTRIBUTE]" in run("policy", "check", "agent_run.yaml").stderr


def test_a_bad_file_is_5_with_line_and_mend(run: Call, file: Path) -> None:
    """Each problem is a line with file, line and what to change."""
    file.write_text(GOOD.replace("max_steps: 10", "max_stepps: 10\n  autonomy: maybe"))
    ended = run("policy", "check", "agent_run.yaml")
    assert ended.exit_code == 5
    assert (
        "agent_run.yaml:3: max_stepps is not a known key; did you mean 'max_steps'?" in ended.stdout
    )
    assert ended.stderr == "agent_run.yaml: 2 problems\n"


def test_lost_nesting_is_answered_with_the_mended_block(run: Call, file: Path) -> None:
    """A file whose nesting is lost is one problem, and the block to paste is printed."""
    file.write_text("agent_run:\n  max_steps: 10\n  approvals:\n  refund_usd_over: 50\n")
    ended = run("policy", "check", "agent_run.yaml")
    assert ended.exit_code == 5
    assert "    refund_usd_over: 50" in ended.stdout
    assert "1 problem\n" in ended.stderr


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_a_check_as_json_has_the_documented_keys(run: Call, file: Path, form: str) -> None:
    """`policy check` as json is one object, also when the file is wrong."""
    found = json.loads(run("policy", "check", "agent_run.yaml", "-o", form).stdout)
    assert [*found] == ["file", "ok", "version", "tools", "problems"]
    file.write_text("{")
    assert json.loads(run("policy", "check", "agent_run.yaml", "-o", form).stdout)["ok"] is False


def test_tools_are_checked_with_the_file(run: Call) -> None:
    """`--tools` finds a write without a key; a good tool that declares the fact passes."""
    assert run("policy", "check", "agent_run.yaml", "--tools", "shop_tools:refund").exit_code == 0
    ended = run("policy", "check", "agent_run.yaml", "--tools", "shop_tools:both")
    assert ended.exit_code == 5
    assert "keyless writes but has no idempotency key" in ended.stdout


def test_a_threshold_that_no_tool_declares_is_a_problem(run: Call, file: Path) -> None:
    """A threshold on a misspelt fact is found once the tools are named."""
    file.write_text(GOOD.replace("refund_usd_over", "refunds_usd_over"))
    ended = run("policy", "check", "agent_run.yaml", "--tools", "shop_tools:refund")
    assert ended.exit_code == 5
    assert "which no bound tool declares" in ended.stdout


@pytest.mark.parametrize(
    ("name", "code"), [("shop_tools:", 2), ("shop_tools:nothing", 1), ("no_such_module:x", 1)]
)
def test_tools_that_cannot_be_found_are_one_sentence(run: Call, name: str, code: int) -> None:
    """A module or attribute that is not there is told in a sentence."""
    ended = run("policy", "check", "agent_run.yaml", "--tools", name)
    assert ended.exit_code == code
    assert f"--tools {name}: " in ended.stderr


def test_a_missing_file_is_5(run: Call) -> None:
    """A file that cannot be read does not pass the check."""
    ended = run("policy", "check", "nothing.yaml")
    assert ended.exit_code == 5
    assert "cannot be read" in ended.stdout


def test_the_schema_is_for_editors(run: Call) -> None:
    """`policy schema` prints JSON Schema that knows the file's top key."""
    assert "agent_run" in json.loads(run("policy", "schema").stdout)["properties"]
