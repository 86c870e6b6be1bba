"""Ledgers that the benchmark fills are ledgers: the product finds nothing wrong in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from benchmarks.filled import (
    PER_RUN,
    RUN,
    Copies,
    Ledger,
    Mismatch,
    PostgresLedger,
    SqliteLedger,
    Template,
    copied_run,
    fill,
    record_template,
    recorded_ticket,
)
from benchmarks.subjects import AMOUNT, as_write

from agentguard import Guard
from agentguard.ledger import queries

SIZE = 50


def filled(template: Template, ledgers: Sequence[Ledger]) -> None:
    """Fill small ledgers."""
    fill(template, SIZE, ledgers, lambda _: None)


def check(url: str, *others: str) -> None:
    """Hold a filled ledger against all that the product checks, then go on working in it."""
    bodies: list[str] = []

    def guarded_write(ticket_id: str, amount_usd: Decimal) -> str:
        """Refund a ticket."""
        bodies.append(ticket_id)
        return ticket_id

    guard, tool = Guard(url), as_write(guarded_write)
    names = [*others, *(copied_run(number) for number in range(SIZE // PER_RUN))]
    assert guard.store.check() == "ok"
    assert guard.store.read(queries.damaged) == []
    assert [wrong for name in names if (wrong := guard.runs.verify(name))] == []
    assert len(guard.effects.list(limit=1000)) == PER_RUN * len(names)
    with guard.run("bench"):
        repeated = [tool(recorded_ticket(number), AMOUNT) for number in (0, 7, SIZE - 1)]
        tool("new", AMOUNT)
    assert repeated == [recorded_ticket(number) for number in (0, 7, SIZE - 1)]
    assert bodies == ["new"]
    guard.store.close()


def test_a_filled_file_is_a_ledger(tmp_path: Path) -> None:
    """Seals and chains of a filled file hold, its effects are replayed, and new ones are added."""
    template = record_template(tmp_path)
    file = tmp_path / "ledger.db"
    filled(template, [SqliteLedger(template, file)])
    check(f"sqlite:///{file}", RUN)


def test_a_filled_database_is_a_ledger(tmp_path: Path, postgres_url: str) -> None:
    """The same rows in PostgreSQL hold there too."""
    template = record_template(tmp_path)
    filled(template, [PostgresLedger(template, postgres_url)])
    check(postgres_url)


def test_each_copy_is_its_own(tmp_path: Path) -> None:
    """No two copies share a key, a payload, a claim, a salt or a hash, and times go forward."""
    template = record_template(tmp_path)
    file = tmp_path / "ledger.db"
    filled(template, [SqliteLedger(template, file)])
    with closing(sqlite3.connect(file)) as connection:
        for table, column in (
            ("effects", "key"), ("effects", "payload_hash"), ("effects", "claim_id"),
            ("effects", "seal"), ("events", "hash"), ("events", "salt"), ("runs", "seal"),
        ):  # fmt: skip
            counted = f"SELECT count({column}), count(DISTINCT {column}) FROM {table}"
            found = connection.execute(counted).fetchone()
            assert found[0] == found[1], (table, column)
        order = connection.execute("SELECT run_id FROM runs ORDER BY started_at").fetchall()
    assert [name for (name,) in order] == [*map(copied_run, range(SIZE // PER_RUN)), RUN]


def test_a_product_that_writes_otherwise_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When rows are no longer sealed as the filler believes, it refuses instead of filling."""
    template = record_template(tmp_path)
    monkeypatch.setattr("agentguard.canonical.seal", lambda *_: b"another seal")
    with pytest.raises(Mismatch, match="runs"):
        Copies(template)
