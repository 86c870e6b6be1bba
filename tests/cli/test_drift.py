"""`agentguard runs show`: what a run cost by what for, and where it left its plan."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentguard import Guard, GuardError, idempotent, tool_contract
from tests.cli import world

PLAN: list[dict[str, Any]] = [
    {"tool": "refund_ticket", "arguments": {"ticket": "T-1", "usd": 20}},
    {"tool": "close_ticket", "arguments": {"ticket": "T-1"}, "repeat": 2},
    {"tool": "thank", "arguments": {"secret": "swordfish"}},
]


@tool_contract(effect="write")
@idempotent(per="call")
def refund_ticket(ticket: str, usd: Decimal) -> str:
    """Pay."""
    return f"{ticket} {usd}"


@tool_contract(effect="write")
@idempotent(per="call")
def close_ticket(ticket: str) -> str:
    """Close."""
    return ticket


@tool_contract(effect="write", sensitive=["secret"])
@idempotent(per="call")
def thank(secret: str) -> str:
    """Write a mail."""
    return secret


@pytest.fixture(name="shown")
def a_run_that_drifts(tmp_path: Path) -> Path:
    """Make a run that leaves its plan in every way."""
    path = tmp_path / "drift.db"
    guard = Guard(f"sqlite:///{path}")
    with guard.run("refunds", run_id="r-1") as run:
        run.plan([{"tool": "thank"}], outside="refuse")
        with pytest.raises(GuardError):
            close_ticket("T-9")
        guard.check([thank])
        run.plan(PLAN, outside="note", ordered=True, reason="the real one")
        close_ticket("T-1")
        refund_ticket("T-1", Decimal(20))
        refund_ticket("T-2", Decimal(20))
        run.add_cost("retrieval", "0.50")
        run.add_human_minutes(3, by="dana")
    guard.close()
    return path


def show(path: Path, *words: str) -> str:
    """Return what `runs show` prints."""
    ended = world.call(path, world.Clock(), "runs", "show", "r-1", *words)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_drift_is_shown(shown: Path) -> None:
    """A run says how far its plan is, what was outside it, before its turn, refused and not done."""
    lines = [" ".join(line.split()) for line in show(shown).splitlines()]
    assert "plan 1 of 3 steps done, in this order; what is outside is noted" in lines
    assert "outside step 4: outside the plan" in lines
    assert "out of order step 2: came before its turn in the plan" in lines
    assert "not planned step 1: refused by the plan" in lines
    assert 'not done step 2 of the plan: close_ticket ticket="T-1", 1 of 2' in lines
    assert 'not done step 3 of the plan: thank secret="[hidden]"' in lines


def test_drift_as_json(shown: Path) -> None:
    """`-o json` has the plan with its steps, what used them up, and what was outside."""
    found: dict[str, Any] = json.loads(show(shown, "-o", "json"))
    plan = found["plan"]
    assert (plan["outside"], plan["ordered"], plan["replaced"]) == ("note", True, 1)
    assert (plan["outside_steps"], plan["out_of_order_steps"], plan["refused_steps"]) == (
        [4], [2], [1],
    )  # fmt: skip
    assert plan["missing"] == [2, 3]
    assert plan["steps"][0] == {
        "step": 1, "tool": "refund_ticket", "arguments": {"ticket": "T-1", "usd": 20}, "repeat": 1,
        "done": 1, "calls": [3],
    }  # fmt: skip
    assert [(s["plan"], s["plan_step"]) for s in found["timeline"]] == [
        (None, None), ("out of order", 2), (None, 1), ("outside", None),
    ]  # fmt: skip


def test_a_step_tells_its_place_in_the_plan(shown: Path) -> None:
    """`--step` says which step of the plan a call was."""
    assert "step 1 of the plan" in show(shown, "--step", "3")
    assert "no step of the plan" in show(shown, "--step", "4")
    assert "step 2 of the plan, before its turn" in show(shown, "--step", "2")


def test_a_cost_is_split(shown: Path) -> None:
    """A run says what its cost was for, and what is not known of it."""
    (line,) = [line for line in show(shown).splitlines() if line.startswith("of it")]
    assert line.split(maxsplit=2)[2] == "retrieval $0.50, 3 min of people, human not known"
    costs = json.loads(show(shown, "-o", "json"))["costs"]
    assert (costs["retrieval_usd"], costs["human_minutes"], costs["unknown"]) == (
        "0.50", "3", ["human"],
    )  # fmt: skip


def test_watching_tells_plans_and_costs(shown: Path) -> None:
    """`runs watch` names what stands outside the plan, the plan's word on it, and each cost."""
    ended = world.call(shown, world.Clock(), "runs", "watch", "r-1")
    lines = [line.split() for line in ended.stdout.splitlines()]
    told = [line[1:] for line in lines if line[1] in ("plan.set", "cost.added")]
    assert told == [
        ["plan.set", "refuse"], ["plan.set", "note"], ["cost.added", "retrieval"],
        ["cost.added", "human"],
    ]  # fmt: skip
    assert any(line[-1] == "outside" or "outside" in line for line in lines)
