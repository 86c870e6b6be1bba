"""Ledgers that are full already: the rows of a real run, again and again under other names.

One run of guarded writes is recorded by the product. Its rows are then multiplied: each copy has
its own run, tickets, keys, payload hashes, times and salts, and its chain and seals are computed by
the product's own functions, so that all of its checks hold. A ledger of *n* records has *n*
effects, each with its two events, in runs of ten.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from .subjects import AMOUNT, LIMITS, as_write, guard_at, guarded_write

RUN, TICKET = "run-of-the-template", "ticket-of-the-template"
PER_RUN = 10
TABLES = ("runs", "events", "leaves", "effects", "budgets")
SECOND = 1_000_000
TIMES = ("at", "started_at", "part_started_at", "updated_at", "finished_at", "created_at",
         "first_started_at")  # fmt: skip

Row = list[Any]


class Ledger(Protocol):
    """What can be filled."""

    def add(self, copied: dict[str, list[Row]]) -> None:
        """Take the rows of one run."""
        ...

    def finish(self) -> None:
        """Make it ready for use."""
        ...


class Mismatch(Exception):
    """The product writes its rows otherwise than this room believes."""


def recorded_ticket(number: int) -> str:
    """Name the ticket of one record."""
    return f"recorded-{number}"


def copied_run(number: int) -> str:
    """Name the run of one copy."""
    return f"run-{number:07}"


@dataclass(frozen=True, slots=True)
class Template:
    """The rows of one run, by table.

    Attributes:
        file: the store that has nothing but this run in it.
        hash_key: the tenant's secret, of which payload hashes are made.
        major: the part of the contract's version that keys are made of.
        columns: the names of each table's columns.
        counters: those that a run's seal is made of, in its order.
    """

    file: Path
    hash_key: bytes
    major: str
    columns: dict[str, tuple[str, ...]]
    rows: dict[str, list[Row]]
    counters: tuple[str, ...]


def record_template(folder: Path) -> Template:
    """Have the product record one run."""
    from agentguard import Guard
    from agentguard.ledger.runs import SELECT_SEALED

    file = folder / "template.db"
    guard = Guard(f"sqlite:///{file}")
    tool: Any = as_write(guarded_write)
    with guard.run("bench", run_id=RUN, **LIMITS):
        for number in range(PER_RUN):
            tool(f"{TICKET}-{number}", AMOUNT)
    major = guard.bind(tool.__agentguard__).major
    guard.store.close()
    with closing(sqlite3.connect(file)) as connection:
        columns, rows = {}, {}
        for table in TABLES:
            found = connection.execute(f"SELECT * FROM {table}")
            columns[table] = tuple(column[0] for column in found.description)
            rows[table] = [list(row) for row in found]
        (hash_key,) = connection.execute("SELECT hash_key FROM tenants").fetchone()
        sealed = connection.execute(SELECT_SEALED).description
    counters = tuple(column[0] for column in sealed)[:-1]
    return Template(file, hash_key, major, columns, rows, counters)


class Copies:
    """Copies of a template, each a run of its own with all its rows."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._at = {
            table: {name: index for index, name in enumerate(names)}
            for table, names in template.columns.items()
        }
        self._times = {
            table: [index for name, index in places.items() if name in TIMES]
            for table, places in self._at.items()
        }
        effects = self._at["effects"]
        self._steps = {row[effects["step"]]: row for row in template.rows["effects"]}
        self._bound = self._commitments(template.rows["events"])
        self._check()

    def _commitments(self, events: list[Row]) -> list[str]:
        """What binds the recorded contents to their events: replaced in every copy."""
        from agentguard.ledger.runs import commitment

        salt, body = self._at["events"]["salt"], self._at["events"]["body"]
        return ["" if row[body] is None else commitment(row[salt], row[body]) for row in events]

    def _check(self) -> None:
        """Refuse to multiply what would not be right: a copy under the same names must be the same."""
        original = self._template.rows
        tickets = [f"{TICKET}-{number}" for number in range(PER_RUN)]
        for table, rows in self.copy(RUN, tickets, 0, new_salt=False).items():
            if rows != original[table]:
                raise Mismatch(
                    f"a copy of the recorded run differs in {table}: mend benchmarks/filled"
                )

    def numbered(self, number: int, many: int) -> dict[str, list[Row]]:
        """Make copy *number* of *many*: the older, the longer ago."""
        tickets = [recorded_ticket(number * PER_RUN + step) for step in range(PER_RUN)]
        return self.copy(copied_run(number), tickets, (number - many) * SECOND)

    def copy(
        self, run_id: str, tickets: list[str], later: int, *, new_salt: bool = True
    ) -> dict[str, list[Row]]:
        """Return all rows of one copy, by table."""
        copied: dict[str, list[Row]] = {}
        for table in TABLES:
            copied[table] = rows = [list(row) for row in self._template.rows[table]]
            for row in rows:
                for index in self._times[table]:
                    if row[index] is not None:
                        row[index] += later
        names = [self._names(step, ticket) for step, ticket in enumerate(tickets, 1)]
        self._rename(copied, run_id, names)
        heads = self._chain(copied["events"], names, new_salt=new_salt)
        self._finish(copied, heads)
        return copied

    def _names(self, step: int, ticket: str) -> list[tuple[str, str]]:
        """What is said of one call, and what is said in its place."""
        from agentguard.canonical import canonical, effect_key, keyed_hash

        places, original = self._at["effects"], self._steps[step]
        tenant, tool = original[places["tenant"]], original[places["tool"]]
        fields = ["refund:{ticket_id}", ticket]
        key = effect_key(tenant, "tenant", tool, self._template.major, fields)
        payload = canonical([tool, {"amount_usd": str(AMOUNT), "ticket_id": ticket}])
        return [
            (original[places["key"]], key),
            (original[places["payload_hash"]], keyed_hash(self._template.hash_key, payload)),
            (f"{TICKET}-{step - 1}", ticket),
        ]

    def _rename(
        self, copied: dict[str, list[Row]], run_id: str, names: list[list[tuple[str, str]]]
    ) -> None:
        effects, claim = self._at["effects"], self._at["effects"]["claim_id"]
        for row in chain(*(copied[table] for table in ("runs", "events", "leaves"))):
            row[1] = run_id  # the tenant leads, the run follows
        for row in copied["effects"]:
            (_, key), (_, payload), (old, ticket) = names[row[effects["step"]] - 1]
            row[effects["key"]], row[effects["payload_hash"]] = key, payload
            row[effects["run_id"]] = run_id
            row[effects["reserved"]] = row[effects["reserved"]].replace(RUN, run_id)
            row[effects["result"]] = row[effects["result"]].replace(old, ticket)
            row[claim] = row[claim] if run_id == RUN else key[-len(row[claim]) :]
        span = self._at["budgets"]["span"]
        for row in copied["budgets"]:
            row[span] = row[span].replace(RUN, run_id)

    def _chain(
        self, events: list[Row], names: list[list[tuple[str, str]]], *, new_salt: bool
    ) -> dict[int, bytes]:
        """Rewrite what the events say, and chain them; return their hashes."""
        from agentguard.ledger.runs import commitment, link
        from agentguard.ledger.values import RunRef

        at = self._at["events"]
        tenant, run_id, data, step = at["tenant"], at["run_id"], at["data"], at["step"]
        salt, body, hashed, actor = at["salt"], at["body"], at["hash"], at["actor"]
        ref = RunRef(events[0][tenant], events[0][run_id], events[0][actor])
        heads: dict[int, bytes] = {}
        head = bytes(32)
        for row, bound in zip(events, self._bound, strict=True):
            text = row[data].replace(RUN, ref.run_id)
            told = row[body]
            for old, new in names[row[step] - 1] if row[step] else ():
                text, told = text.replace(old, new), told and told.replace(old, new)
            if told is not None:
                fresh = secrets.token_bytes(16) if new_salt else row[salt]
                row[salt], row[body] = fresh, told
                text = text.replace(bound, commitment(fresh, told))
            row[data] = text
            when = row[at["at"]]
            kind, seq = row[at["kind"]], row[at["seq"]]
            head = link(ref, seq, when, row[step], kind, row[actor], text, head)
            row[hashed] = heads[seq] = head
        return heads

    def _finish(self, copied: dict[str, list[Row]], heads: dict[int, bytes]) -> None:
        """Put the chain's heads where they are told, and seal what is sealed."""
        from agentguard.canonical import canonical, seal, sha256
        from agentguard.ledger import rows as effect_rows

        leaves, runs, effects = self._at["leaves"], self._at["runs"], self._at["effects"]
        for row in copied["leaves"]:
            seq = row[leaves["seq"]]
            said = {"head": heads[seq].hex(), "run_id": row[leaves["run_id"]], "seq": seq}
            row[leaves["hash"]] = sha256(b"\x00" + canonical(said))
        for row in copied["runs"]:
            row[runs["head_hash"]] = heads[row[runs["head_seq"]]]
            row[runs["seal"]] = seal(*(row[runs[name]] for name in self._template.counters))
        sealed = [effects[name] for name in effect_rows.COLUMNS]
        for row in copied["effects"]:
            row[effects["seal"]] = seal(*(row[index] for index in sealed))

    def rows(self, size: int) -> Iterator[dict[str, list[Row]]]:
        """Return all copies that make a ledger of *size* records."""
        many = size // PER_RUN
        return (self.numbered(number, many) for number in range(many))


class SqliteLedger:
    """A file that is filled, beside the run that its records are copies of."""

    def __init__(self, template: Template, file: Path) -> None:
        shutil.copyfile(template.file, file)
        self._file = file
        self._statements = {
            table: f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})"
            for table, names in template.columns.items()
        }
        self._connection = sqlite3.connect(file, isolation_level=None)
        # Nobody reads the file before it is whole, so nothing has to survive a crash.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -3000000"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("BEGIN")

    def add(self, copied: dict[str, list[Row]]) -> None:
        """Insert the rows of one run, in the order in which the product would."""
        for table, rows in copied.items():
            self._connection.executemany(self._statements[table], rows)

    def finish(self) -> None:
        """Commit, and have the kernel write it all, so that no lap pays for it."""
        self._connection.execute("COMMIT")
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.close()
        with self._file.open("rb") as file:
            os.fsync(file.fileno())


class PostgresLedger:
    """A database that is filled: the product makes its tables, COPY brings the rows."""

    def __init__(self, template: Template, url: str) -> None:
        guard_at(url).store.close()
        import psycopg

        self._opened = ExitStack()
        self._connection = psycopg.connect(url, autocommit=True)
        where = "SELECT schemaname FROM pg_tables WHERE tablename = 'effects'"
        (self._schema,) = self._connection.execute(where).fetchone() or ("public",)
        self._adopt(template)
        self._copies = {
            table: self._opened.enter_context(self._copy(psycopg.connect(url), table, names))
            for table, names in template.columns.items()
        }

    def _adopt(self, template: Template) -> None:
        """Take over the tenant, with the secret that payload hashes are made of."""
        insert = (
            f"INSERT INTO {self._schema}.tenants (tenant, hash_key) VALUES ('default', %s)"
            " ON CONFLICT (tenant) DO UPDATE SET hash_key = excluded.hash_key"
        )
        self._connection.execute(insert.encode(), (template.hash_key,))

    @contextmanager
    def _copy(self, connection: Any, table: str, names: tuple[str, ...]) -> Iterator[Any]:
        into = f"COPY {self._schema}.{table} ({', '.join(names)}) FROM STDIN"
        with connection, connection.cursor().copy(into.encode()) as copy:
            yield copy

    def add(self, copied: dict[str, list[Row]]) -> None:
        """Send the rows of one run."""
        for table, rows in copied.items():
            for row in rows:
                self._copies[table].write_row(row)

    def finish(self) -> None:
        """Commit, and do what the server does by itself in the minutes after such a load."""
        self._opened.close()
        for statement in ("VACUUM ANALYZE", "CHECKPOINT"):
            self._connection.execute(statement.encode())
        self._connection.close()


def fill(
    template: Template, size: int, ledgers: Sequence[Ledger], told: Callable[[int], None]
) -> None:
    """Put *size* records into each of *ledgers*; *told* hears how many there are."""
    for number, copied in enumerate(Copies(template).rows(size)):
        for ledger in ledgers:
            ledger.add(copied)
        if number % 1000 == 0:
            told(number * PER_RUN)
    for ledger in ledgers:
        ledger.finish()
