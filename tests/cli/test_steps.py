"""`runs show RUN --step N`: the operator's questions about one step, and their answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentguard.cli.shapes import StepJson
from tests.cli import world
from tests.cli.conftest import Call
from tests.cli.world import STEPS
from tests.support import ROOT


def answers(run: Call, step: str) -> list[tuple[str, str]]:
    """Return the labelled lines of a step."""
    ended = run("runs", "show", "r-1", "--step", str(STEPS[step]))
    assert ended.exit_code == 0, ended.stderr
    return [
        (label, text.strip())
        for label, _, text in (line.partition("  ") for line in ended.stdout.splitlines())
    ]


def answer(run: Call, step: str, label: str) -> str:
    """Return the one line with *label*, or several joined."""
    return "\n".join(text for name, text in answers(run, step) if name == label)


def as_json(run: Call, step: str) -> dict[str, Any]:
    """Return a step as JSON."""
    found: dict[str, Any] = json.loads(
        run("runs", "show", "r-1", "--step", str(STEPS[step]), "-o", "json").stdout
    )
    return found


@pytest.mark.parametrize("step", STEPS)
def test_every_step_answers_every_question(run: Call, step: str) -> None:
    """Whatever happened in a step, each question has a line."""
    labels = [label for label, _ in answers(run, step)]
    asked = [
        "step",
        "asked",
        "by",
        "allowed",
        "approval",
        "idempotency",
        "verdict",
        "cost",
        "time",
        "undo",
    ]
    assert [label for label in asked if label not in labels] == []
    assert "wrote" in labels or "result" in labels


@pytest.mark.parametrize("step", STEPS)
def test_every_step_has_the_documented_keys(run: Call, step: str) -> None:
    """Whatever happened in a step, its JSON has the same keys."""
    assert tuple(as_json(run, step)) == tuple(StepJson.__annotations__)


def test_a_write_tells_who_asked_for_what(run: Call) -> None:
    """The arguments stand with the agent and the person it acts for."""
    assert answer(run, "written", "asked") == 'refund amount_usd="20" note="" ticket_id="T-1"'
    assert answer(run, "written", "by") == "support on behalf of dana@shop"


def test_a_write_tells_why_it_was_allowed(run: Call) -> None:
    """Rule, policy version and contract version stand on one line."""
    text = answer(run, "written", "allowed")
    assert text.startswith("no rule asks; policy ")
    assert ", contract 1:" in text


def test_a_write_tells_what_it_wrote(run: Call) -> None:
    """Result, effect and its state stand together."""
    text = answer(run, "written", "wrote")
    assert text.startswith('{"id": "rf_T-1", "usd": "20"}; effect ag1_')
    assert text.endswith(" succeeded")


def test_a_first_use_is_told_with_its_attempts(run: Call) -> None:
    """A body that was started three times has three attempts under one key."""
    assert "; first use; 3 attempts, fence 3" in answer(run, "retried", "idempotency")
    assert [a["outcome"] for a in as_json(run, "retried")["attempts"]] == [
        "failed_retryable", "failed_retryable", "succeeded",
    ]  # fmt: skip


def test_a_repeat_under_another_step_is_a_duplicate_served(run: Call) -> None:
    """A repeat names the step whose recorded end it got, and wrote nothing."""
    served = f"duplicate served from run r-1, step {STEPS['written']}; never started"
    assert answer(run, "duplicate", "idempotency").endswith(served)
    assert answer(run, "duplicate", "wrote").startswith("nothing: the recorded result was served")
    assert as_json(run, "duplicate")["duplicates"][0]["first_step"] == STEPS["written"]


def test_a_repeat_under_the_same_step_is_counted_there(run: Call) -> None:
    """A call delivered twice stays one step, which says that a duplicate was served."""
    text = answer(run, "twice", "idempotency")
    assert "first use, then 1 duplicate served (last 2026-03-01 03:00:01 UTC); 1 attempt" in text
    assert answer(run, "twice", "by").endswith("call call_7")


def test_a_key_with_other_arguments_is_refused(run: Call) -> None:
    """A conflict says why it was refused and that nothing was written."""
    assert answer(run, "conflict", "allowed").startswith(
        "no, idempotency conflict: refund: this key"
    )
    assert answer(run, "conflict", "wrote").startswith("nothing: the call did not start")
    assert "; conflict; never started" in answer(run, "conflict", "idempotency")


def test_an_approved_payload_equals_the_executed_one(run: Call) -> None:
    """Who approved stands with both hashes, which are equal."""
    said, hashes = answer(run, "approved", "approval").split("\n")
    assert said == 'approved by maria (finance) 2026-03-01 03:02:51 UTC "matches ticket"'
    left, right = hashes.split(" = ")
    assert left.split()[-1] == right.split()[-1]
    assert left.startswith("approved payload ")


def test_an_executed_payload_that_nobody_approved_is_shouted(
    run: Call, store: Path, clock: world.Clock
) -> None:
    """If the record shows another payload than the approved one, the line says so."""
    guard = world.guard_of(store, clock)
    guard.store.transact(
        lambda tx: tx.run(
            'UPDATE events SET data = replace(data, \'"payload_hash":"\', \'"payload_hash":"f\')'
            " WHERE kind = 'approval.used'"
        )
    )
    guard.close()
    assert " IS NOT executed payload f" in answer(run, "approved", "approval")


def test_waiting_for_people_is_told_apart_from_working(run: Call) -> None:
    """The time line says how long people were waited for."""
    assert answer(run, "approved", "time").endswith("waited 2 min 51 s for people")
    assert as_json(run, "approved")["waited_s"] == 171.0


def test_an_edited_call_tells_what_was_edited_and_who_then_approved(run: Call) -> None:
    """What was asked, what it was changed to and who approved the change stand in order."""
    assert 'amount_usd="90"' in answer(run, "edited", "asked")
    first, second, third = answer(run, "edited", "approval").split("\n")
    assert first.startswith("edited by ann (finance) ")
    assert first.endswith(': amount_usd="60"')
    assert second.startswith("approved by bob (finance) ")
    assert " = executed payload " in third


def test_a_rejected_call_tells_who_said_no_and_why(run: Call) -> None:
    """A rejection stands with its reason, and nothing was written."""
    said, outcome = answer(run, "rejected", "approval").split("\n")
    assert said == 'rejected by maria (finance) 2026-03-01 03:02:51 UTC "too much"'
    assert outcome.endswith("rejected, nothing ran")
    assert answer(run, "rejected", "wrote").startswith("nothing: the call did not start")
    assert as_json(run, "rejected")["outcome"] == "rejected"


def test_a_pending_call_tells_how_to_decide(run: Call) -> None:
    """A call that waits names the command that shows the approval, and when it expires."""
    text = answer(run, "pending", "approval")
    assert text.startswith(
        "waits for a person, expires 2026-03-01 05:03:23 UTC: agentguard approvals show ap_"
    )
    assert as_json(run, "pending")["outcome"] == "waiting"


def test_a_call_that_nobody_answered_is_expired(run: Call, clock: world.Clock) -> None:
    """Time runs out without an event, and the step says so all the same."""
    clock.tick(3 * 3600)
    assert answer(run, "pending", "approval").endswith("expired, nothing ran")
    assert as_json(run, "pending")["outcome"] == "expired"


def test_a_doubt_tells_where_to_rule(run: Call) -> None:
    """A write in doubt says that nobody knows, and names the command."""
    text = answer(run, "doubt", "wrote")
    assert text.startswith("nobody knows (error unclassified): agentguard effects show ag1_")


def test_a_lost_process_is_not_told_as_working_time(tmp_path: Path, clock: world.Clock) -> None:
    """A step whose process died says when that was seen, not that it worked so long."""
    path = tmp_path / "a.db"
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from tests.cli import world\n"
        "from agentguard import idempotent, tool_contract\n"
        "@tool_contract(effect='write')\n@idempotent(per='call')\n"
        "def die() -> None: os._exit(9)\n"
        "with world.guard_of(Path(sys.argv[1]), world.Clock()).run('w', run_id='r-1'): die()"
    )
    words = [sys.executable, "-c", script, str(path), str(ROOT)]
    assert subprocess.run(words, check=False).returncode == 9
    text = world.call(path, clock, "runs", "show", "r-1", "--step", "1").stdout
    assert "its process was lost, which was seen 2026-03-01" in text
    assert "worked" not in text
    assert "nobody knows (owner lost)" in text


def test_a_ruling_stands_with_the_step(run: Call) -> None:
    """Who ruled on a doubt, how and why, is part of the step's story."""
    name = as_json(run, "doubt")["effect_id"]
    run("effects", "resolve", name, "happened", "--by", "ops", "--reason", "seen in the bank")
    assert answer(run, "doubt", "ruling").startswith("happened, by ops ")
    assert answer(run, "doubt", "ruling").endswith('"seen in the bank"')
    assert answer(run, "doubt", "wrote").startswith("it happened, as was ruled later; effect ag1_")


def test_a_verdict_names_its_verifier(run: Call) -> None:
    """What the verifier said stands with its name."""
    assert answer(run, "written", "verdict") == "confirmed confirmed: it is in the books"


def test_a_cost_names_the_budgets_it_came_from(run: Call) -> None:
    """Money of the run and money that the tool moved are told apart."""
    assert answer(run, "written", "cost") == (
        "$0.00 of the run's budget, $20.00 of tool:refund (run:r-1)"
    )
    assert answer(run, "model", "cost") == (
        "$0.011 of the run's budget, 800 tokens in, 100 out, price of table 65e6a1cb5779"
    )


@pytest.mark.parametrize(
    ("step", "undo"),
    [("written", "none declared"), ("mail", "irreversible"), ("read", "nothing to undo")],
)
def test_how_to_undo_is_told(run: Call, step: str, undo: str) -> None:
    """A step says what is declared to undo it."""
    assert answer(run, step, "undo") == undo


def test_a_sensitive_argument_is_never_shown(run: Call) -> None:
    """Arguments declared sensitive are hidden in every form."""
    assert 'secret="[hidden]"' in answer(run, "mail", "asked")
    for words in (["runs", "show", "r-1", "--json"], ["approvals", "list", "--status", "all"]):
        assert "swordfish" not in run(*words).stdout


def test_a_model_call_shows_what_it_was_asked_and_said(run: Call) -> None:
    """Messages and answer of a model stand in its step."""
    assert answer(run, "model", "asked").startswith('model planner [{"content": "refund T-1"')
    assert answer(run, "model", "result") == '"I call refund"'


def test_erased_content_is_told(run: Call, store: Path, clock: world.Clock) -> None:
    """Arguments and results that were erased are said to be gone, not shown as empty."""
    guard = world.guard_of(store, clock)
    guard.store.transact(lambda tx: tx.run("UPDATE events SET salt = NULL, body = NULL"))
    guard.close()
    assert answer(run, "read", "asked") == "look_up (arguments no longer kept)"
    assert answer(run, "written", "wrote").startswith("(no longer kept); effect")


def test_a_step_that_is_not_there_is_a_failure(run: Call) -> None:
    """A step beyond the last is exit 1, and tells how many there are."""
    ended = run("runs", "show", "r-1", "--step", "99")
    assert ended.exit_code == 1
    assert ended.stderr == "agentguard: run r-1 has no step 99: it has 13 steps\n"


def test_a_step_as_jsonl_is_one_line(run: Call) -> None:
    """`--step` with -o jsonl prints one line."""
    assert run("runs", "show", "r-1", "--step", "3", "-o", "jsonl").stdout.count("\n") == 1
