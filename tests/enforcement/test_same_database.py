"""Tools that write into the store's own database: one transaction holds body, outcome and demotion."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agentguard import ApprovalRequired, Guard, current_run, idempotent, tool_contract
from agentguard.config import Settings
from agentguard.errors import GuardError
from tests.enforcement.shop import WORKFLOW, level

PAYS = level("pays", sli="correctness")


@tool_contract(effect="write")
@idempotent(key="pay:{ticket}", same_database=True)
def pay(ticket: str) -> str:
    """Pay on the connection of the store, which holds the transaction open; bad tickets are refused."""
    assert current_run().call.connection is not None
    if ticket.startswith("bad"):
        raise ValueError(ticket)
    return f"paid {ticket}"


@pytest.fixture(name="guard", params=["sqlite", "postgres"])
def a_guard(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A guard on each store that can share its transactions."""
    server = request.param == "postgres"
    url = request.getfixturevalue("postgres_url") if server else f"sqlite:///{tmp_path}/a.db"
    guard = Guard(url, config=Settings(slos=(PAYS,)))
    yield guard
    guard.close()


def _call(guard: Guard, ticket: str) -> Any:
    try:
        with guard.run(WORKFLOW):
            return pay(ticket)
    except (GuardError, ValueError) as error:
        return error


def test_what_was_undone_counts_as_failed_and_takes_autonomy_away(guard: Guard) -> None:
    """A body whose work was taken back has failed; four of five, and the sixth call waits."""
    assert _call(guard, "good") == "paid good"
    for number in range(4):
        assert isinstance(_call(guard, f"bad-{number}"), ValueError)
    assert isinstance(_call(guard, "next"), ApprovalRequired)
    head = guard.slos.status()[0].head
    assert (head.good, head.bad, head.stage) == (1, 4, "approve")


def test_failures_at_the_same_time_are_all_told(guard: Guard) -> None:
    """Calls that fail at once wait for each other, and each is counted, refused, or asked about."""
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda n: _call(guard, f"bad-{n}"), range(8)))
    head = guard.slos.status()[0].head
    failed = [end for end in ends if isinstance(end, ValueError)]
    waits = [end for end in ends if isinstance(end, ApprovalRequired)]
    assert (len(failed) + len(waits), head.bad) == (8, len(failed))
