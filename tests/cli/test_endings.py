"""`agentguard runs` and safe endings: how a run ended, and how its question is answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentguard import Guard, GuardError, budget, falls_back_to, idempotent, tool_contract
from agentguard.cli import watching
from tests.cli import world
from tests.cli.conftest import Call


def refused(ticket: str) -> str:
    """Never run: the budget has no room for it."""
    return ticket


class Lost:
    """A ticket system that never answers."""

    def file(self, ticket: Any) -> str:
        """Take a ticket, perhaps."""
        raise ConnectionResetError("no answer")


@pytest.fixture(name="ended")
def runs_that_fell_back(store: Path, clock: world.Clock) -> None:
    """Add a run that asks, one that drafted, and one whose ticket is in doubt."""
    guard = Guard(f"sqlite:///{store}", clock=clock, tickets=Lost())
    for to in ("ask", "draft", "ticket"):
        question = "Which account?\x1b[2J" if to == "ask" else None
        tool: Any = falls_back_to(to, question=question)(refused)
        for policy in (
            budget(max_calls=0), idempotent(key=f"{to}:{{ticket}}"),
            tool_contract(effect="write", name=f"pay_{to}", sensitive=()),
        ):  # fmt: skip
            tool = policy(tool)
        with guard.run("w", run_id=f"ends-{to}"), pytest.raises(GuardError):
            tool("T-1")
    guard.close()


@pytest.mark.usefixtures("ended")
def test_a_run_s_page_says_how_it_ended(run: Call) -> None:
    """`runs show` names the ending, its reason and the call that was not made."""
    text = run("runs", "show", "ends-draft").stdout
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "fell back to a draft ends-draft, because of budget exceeded" in lines
    assert 'not done pay_draft ticket="T-1"' in lines


@pytest.mark.usefixtures("ended")
def test_a_question_is_shown_with_the_command_that_answers_it(run: Call) -> None:
    """`runs show` has the question, harmless to the terminal, and what to type."""
    text = run("runs", "show", "ends-ask").stdout
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert r"question Which account?\x1b[2J" in lines
    assert "waits agentguard runs answer ends-ask TEXT --by YOU" in lines


@pytest.mark.usefixtures("ended")
def test_a_ticket_in_doubt_is_pointed_out(run: Call) -> None:
    """`runs show` says why there is only a draft, and where the doubt is."""
    text = run("runs", "show", "ends-ticket").stdout
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "no better ConnectionResetError: no answer" in lines
    assert "in doubt pay_ticket.ticket: agentguard effects show fallback/ends-ticket/1" in lines
    assert "ConnectionReset" not in run("effects", "show", "fallback/ends-ticket/1").stderr


@pytest.mark.usefixtures("ended")
def test_an_answer_is_taken_and_shown(run: Call) -> None:
    """`runs answer` takes a person's answer; the page shows it, and nothing waits any more."""
    said = run("runs", "answer", "ends-ask", "the second", "--by", "dana")
    assert (said.exit_code, said.stderr) == (
        0, "run ends-ask has its answer and may be entered again under its id\n",
    )  # fmt: skip
    lines = [" ".join(ln.split()) for ln in run("runs", "show", "ends-ask").stdout.splitlines()]
    assert 'answer "the second" by dana' in lines
    assert not [line for line in lines if line.startswith("waits")]


@pytest.mark.usefixtures("ended")
def test_an_answer_that_nobody_asked_for_is_refused(run: Call) -> None:
    """Exit 3 and one sentence where there is no question, or it was answered."""
    refused_ = run("runs", "answer", "ends-draft", "yes", "--by", "dana")
    assert (refused_.exit_code, "has asked nothing" in refused_.stderr) == (3, True)


@pytest.mark.usefixtures("ended")
def test_an_ending_as_json(run: Call) -> None:
    """`runs show -o json` has the ending with its kind, reference, cause and arguments."""
    found = json.loads(run("runs", "show", "ends-draft", "-o", "json").stdout)["ending"]
    assert (found["kind"], found["reference"], found["cause"], found["arguments"]) == (
        "draft", "ends-draft", "budget_exceeded", {"ticket": "T-1"},
    )  # fmt: skip
    assert json.loads(run("runs", "show", "r-1", "-o", "json").stdout)["ending"] is None


@pytest.mark.usefixtures("ended")
def test_watching_a_run_that_asks_says_how_to_answer(
    run: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`runs watch` of a run that waits for an answer names the command."""
    monkeypatch.setattr(watching, "sleep", lambda _seconds: None)
    said = run("runs", "watch", "ends-ask", "--timeout", "0").stderr
    assert "agentguard runs answer ends-ask TEXT --by YOU" in said
