"""What tests of routing share on every runtime: a configuration with three models, and who was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agentguard import Guard, compensated_by, idempotent, tool_contract, verified_by
from agentguard.config import loads

CONFIG = """agent_run:
  models:
    high_reasoning: "openai:gpt-5.1"
    fast_cheap: "openai:gpt-5.1-nano"
    judge: "anthropic:claude-5"
  routing:
    planner_model: high_reasoning
    executor_model: fast_cheap
    verifier_model: judge
    escalation: {to: high_reasoning}
"""
LIGHT, HEAVY, JUDGE = "gpt-5.1-nano", "gpt-5.1", "claude-5"


@contextmanager
def routing(config: str = CONFIG) -> Iterator[Guard]:
    """Open a guard whose configuration routes."""
    prices = {LIGHT: ("1", "4"), HEAVY: ("1000", "4000")}
    guard = Guard("memory://", config=loads(config), prices=prices)
    yield guard
    guard.close()


def asked(guard: Guard, run_id: str = "r") -> list[str]:
    """The models that a run has really called."""
    events = guard.runs.events(run_id)
    return [event.data["model"] for event in events if event.kind == "model.called"]


def refuting(*answers: bool) -> Any:
    """A tool whose outcome is refuted and undone as long as *answers* say no."""
    said = iter(answers)

    @verified_by(lambda _arguments, _result: next(said))
    @compensated_by(lambda result: None)
    @idempotent(per="call")
    @tool_contract(effect="write")
    def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    return pay
