"""What each group is called, and what has to be known to read its figures."""

from __future__ import annotations

LESS = "Ratios are time over time: less is better."
MORE = "Ratios are of steps/s: more is better."
TITLES = {
    "read": f"Guarded read, one caller. {LESS}",
    "write": f"Guarded write, one caller, SQLite FULL. {LESS}",
    "write-postgres": f"Guarded write, one caller, PostgreSQL. {LESS}",
    "writers": f"32 writers, SQLite FULL, equal steps each. {MORE}",
    "writers-postgres": f"32 writers, PostgreSQL, equal steps each. {MORE}",
    "replay": f"Replay of a recorded effect, SQLite. {LESS}",
    "replay-postgres": f"Replay of a recorded effect, PostgreSQL. {LESS}",
    "size": f"Cost against the size of the ledger, beside 1,000 records. {LESS}",
    "length": f"Cost against the length of the run, beside 10 steps. {LESS}",
    "memory": "Memory that a process has grown by in one lap, beside nothing.",
    "disk": "Disk a step, beside runs of 10 steps. Ratios are bytes over bytes: less is better.",
    "contracts": f"Contracts by JSON Schema, bfcl-eval's calls. {LESS}",
    "frameworks": f"Added to one read of a framework, no tracer provider, beside the bare one. {LESS}",
    "import": f"Import, on top of pydantic and the OTel API. {LESS}",
}
SHORT = {
    "read": "one read",
    "write": "one writer, SQLite",
    "write-postgres": "one writer, PostgreSQL",
    "writers": "32 writers, SQLite",
    "writers-postgres": "32 writers, PostgreSQL",
    "replay": "replay, SQLite",
    "replay-postgres": "replay, PostgreSQL",
    "size": "size of the ledger",
    "length": "length of the run",
    "memory": "memory",
    "disk": "disk",
    "contracts": "contracts",
    "frameworks": "frameworks",
    "import": "import",
}
NOTE = """\
Medians over rounds in which all subjects of a group took turns; noise is half the IQR of the
rounds. A ratio is taken round by round: median (least-most). It is taken to the floor, which is the
first of its group, or to the subject that the group's title names. A peer's column holds the ratio
to its fastest variant. LangGraph returns a task's result before its write is durable (its p50
leaves that wait out); it and DBOS record only afterwards, one commit a step, and run the step again
after a crash in it. DBOS ships with a rollback journal on SQLite; it is faster on WAL, so both are
measured. Steps/s include opening and closing each caller's run or workflow, so that all is durable
within them. Powertools ships DynamoDB and Redis layers only; the SQLite layer is ours, on its
conditions. PostgreSQL is a real server of its own on this machine, over TCP, with its settings as
shipped. Large ledgers are rows of a real run, multiplied under other names; all checks of the
product hold on them. Every write of ours has a contract, key, rule, budget and fence, and two
hashed events in its two transactions. On a shared machine trust the ratios only."""
