"""The refund desk as its watcher sees it: fewer tickets, all of the mistakes."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from examples.five_hundred_tickets.script import MISTAKES, tickets

from tests.support import ROOT

COUNT = 100


@pytest.fixture(name="played", scope="module")
def played_in(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Play it once; return what it said, and where."""
    folder = tmp_path_factory.mktemp("desk")
    words = ["-m", "examples.five_hundred_tickets", "--tickets", str(COUNT), "--dir", str(folder)]
    ended = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout, folder


def test_each_customer_has_what_is_true(played: tuple[str, Path]) -> None:
    """By the payments service's own file, each ticket is paid once and right, or not at all."""
    with closing(sqlite3.connect(played[1] / "payments.db")) as payments:
        rows = payments.execute(
            "SELECT ticket_id, amount_usd FROM refunds WHERE status = 'succeeded'"
        ).fetchall()
    owed = [(ticket.id, ticket.owed) for ticket in tickets(COUNT) if ticket.owed]
    assert sorted((ticket_id, Decimal(usd)) for ticket_id, usd in rows) == owed


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_caught_by_something(played: tuple[str, Path], mistake: str) -> None:
    """Each kind of mistake has its lines in the table, and none of them went by."""
    lines = re.findall(rf"^{re.escape(mistake)} +(\d+)  (.*)$", played[0], re.MULTILINE)
    assert sum(int(count) for count, _ in lines) == MISTAKES[mistake] * COUNT // 500
    assert [caught for _, caught in lines if caught == "nothing had to"] == []


def test_what_went_right_was_left_alone(played: tuple[str, Path]) -> None:
    """Where the agent made no mistake, nothing stood in its way."""
    (found,) = re.findall(r"^none +(\d+)  (.*)$", played[0], re.MULTILINE)
    assert found == (str(sum(not ticket.mistake for ticket in tickets(COUNT))), "nothing had to")


def test_every_wrong_refund_was_taken_back(played: tuple[str, Path]) -> None:
    """What was paid wrong is voided, once each."""
    with closing(sqlite3.connect(played[1] / "payments.db")) as payments:
        (voided,) = payments.execute(
            "SELECT count(*) FROM journal WHERE effect = 'refund.voided'"
        ).fetchone()
    assert voided == MISTAKES["wrong amount"] * COUNT // 500
