"""Why a goal is missed, and what would bring it nearer: for whoever reads the losses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Why, and what comes next."""

    why: str
    next: str


REASONS = {
    "P1": Reason(
        "A guarded read checks a contract, names a step, hashes its arguments and notes an event;"
        " the span carries up to 20 attributes.",
        "Fewer attributes on the span (a decision about docs/how-to/telemetry.md), and one pass over"
        " the arguments for hash, record and span.",
    ),
    "P2": Reason(
        "Two commits are the floor, and ours wait for nothing else; what is above them is Python and"
        " SQL: about 300 µs of CPU for two sealed rows, two hashed events, a budget and the mark.",
        "Fewer statements a write (budget and run in one). 1.0 times the floor is out of Python's"
        " reach while each commit carries its chain.",
    ),
    "P3": Reason(
        "A write is four round trips, a look and a commit twice, with 19 prepared statements that are"
        " sent in pipelines; the raw commits have one statement each.",
        "Start, chain and run as one statement each.",
    ),
    "P4": Reason(
        "32 callers share commits, but all of Python runs on one core: 500 µs of CPU a step is 2,000"
        " steps a second at the most. Powertools keeps one row a key and no record.",
        "Less CPU a write, as for P2, and the named-successor group commit. 15 times DBOS would need"
        " 65 µs a step, which is out of Python's reach in one process; several can share the store.",
    ),
    "P5": Reason(
        "CPU, as for P4, and rows that all callers of one run lock one after the other.",
        "The run's row kept for a batch (one wait a transaction, not one a verb), and budgets in"
        " leases.",
    ),
    "P6": Reason(
        "A replay reads the effect with 31 columns, checks its seal and restores the result; the"
        " floor selects one column.",
        "No second look at the kill switches.",
    ),
    "P7": Reason(
        "At 10⁶ rows a look-up of a random key reads pages that no cache of 2 MB holds; memory grows"
        " by SQLite's page caches, once, not by calls.",
        "A larger page cache where memory is no matter, as a parameter of the store's URL.",
    ),
    "P8": Reason(
        "A write keeps two hashed events with their contents, a sealed row and, in short runs, the"
        " run's own rows; the peers keep a result.",
        "Hashes as bytes, not as hexadecimal text, inside events.",
    ),
    "P9": Reason("Imports of pydantic's models.", "Load them when they are used."),
    "P10": Reason(
        "The floor of a framework's own call is 36 to 40 µs, and a guarded read comes on top"
        " (P1); filters and wrappers add the rest.",
        "As for P1.",
    ),
}


def why(missed: Iterable[str]) -> list[str]:
    """Say for each missed goal why, and what comes next."""
    numbers = sorted({number for number in missed if number in REASONS}, key=lambda p: int(p[1:]))
    return [f"- **{p}.** {REASONS[p].why} *Next:* {REASONS[p].next}" for p in numbers]
