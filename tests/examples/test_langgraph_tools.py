"""The example with tools from elsewhere does what its text says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from examples.langgraph_tools.__main__ import POLICY, play
from examples.langgraph_tools.shop import DONE

from agentguard import Guard
from tests.support import ROOT


@pytest.fixture(name="store")
def fresh_store(tmp_path: Path) -> str:
    """Give the example a store of its own, and an empty shop."""
    DONE.clear()
    return f"sqlite:///{tmp_path}/shop.db"


def test_policy_alone_guards_the_tools(store: str) -> None:
    """One mail a subject, a note for each call, and nothing deleted."""
    play(store)
    mail, *notes = DONE
    assert mail == "mail O-1 'Your kettle': We are sorry."
    assert notes == ["note O-1: called twice"] * 2


def test_the_model_is_told_what_is_forbidden(store: str) -> None:
    """A forbidden call is answered with what to do instead, and the agent goes on to its end."""
    *_, refused, last = play(store)
    assert "forbidden_action" in str(refused.content)
    assert last.content == "The customer has been told."


def test_a_sensitive_text_is_not_on_record(store: str) -> None:
    """The mail's text stands neither in the events nor in what the model was asked."""
    play(store)
    guard = Guard(store)
    events = guard.runs.events(guard.runs.list()[0].id)
    assert "sorry" not in str([(event.data, event.content) for event in events])
    guard.close()


def test_the_example_runs_as_its_page_says(tmp_path: Path) -> None:
    """`python -m examples.langgraph_tools` ends well and shows what happened."""
    words = [sys.executable, "-m", "examples.langgraph_tools", f"sqlite:///{tmp_path}/shop.db"]
    said = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert said.partition("What happened in the shop:")[2].count("\n  ") == 3


def test_the_policy_passes_its_check() -> None:
    """The file is one that `agentguard policy check` accepts."""
    assert set(Guard.from_config(POLICY, store="memory://").settings.tools) == {
        "find_order", "mail_customer", "add_note", "delete_order",
    }  # fmt: skip
