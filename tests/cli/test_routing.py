"""`agentguard runs show` tells which model has taken over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentguard import Guard, VerificationFailed, tool_contract, verified_by
from agentguard.config import loads
from tests.cli import world
from tests.cli.conftest import Call

CONFIG = "agent_run: {routing: {planner_model: big, executor_model: small, escalation: {to: big}}}"


@verified_by(lambda _arguments, _result: False)
@tool_contract(effect="read")
def look() -> int:
    """Look."""
    return 1


def test_a_heavier_model_is_told(run: Call, store: Path, clock: world.Clock) -> None:
    """Which role, from which model to which, and why; as JSON, too."""
    guard = Guard(f"sqlite:///{store}", clock=clock, config=loads(CONFIG))
    with guard.run("w", run_id="routed") as routed:
        with pytest.raises(VerificationFailed):
            look()
        routed.model_for("executor")
    guard.close()
    said = run("runs", "show", "routed").stdout
    assert "routing  executor: small -> big, 1 failed verdict" in said
    [change] = json.loads(run("runs", "show", "routed", "--json").stdout)["routing"]
    assert (change["role"], change["from"], change["to"]) == ("executor", "small", "big")
