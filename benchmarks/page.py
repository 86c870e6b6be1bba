"""docs/benchmarks.md: written from one run, losses first."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from .costs import ABOUT
from .figures import Group
from .goals import verdicts
from .losses import where_we_lose
from .machine import Description
from .plots import LEDGER, PEERS
from .reasons import why
from .report import notes, tables
from .titles import NOTE

HEAD = """\
# Benchmarks

What `python3 run.py bench {options}` measured on {day}, whole and unchosen: this page, its plots and
[its figures](benchmarks.json) are written by that command. Make your own with it, and trust the
ratios, which are taken round by round in one run, never the times: machines differ and are shared.

P1 to P10 are the goals that we set ourselves. A floor is what SQLite, PostgreSQL or OpenTelemetry
cost without any guard.

## Where we lose

Written by the command from the figures: each goal that is missed, and each peer that is better.
"""
ALT = {
    PEERS: "Bars: steps per second of 32 callers, agentguard beside its floors and peers",
    LEDGER: "Lines: cost of a start, a look-up and a replay against the records in the ledger",
}


def page(
    machine: Description,
    groups: list[Group],
    drawn: Collection[str],
    costs: list[str],
    options: str,
) -> str:
    """Write the page."""
    day = datetime.now(UTC).date().isoformat()
    lost = [f"- {sentence}" for sentence in where_we_lose(groups)]
    missed = [v.goal.number for g in groups for v in verdicts(g) if v.met is False]
    lines = [HEAD.format(options=options, day=day).rstrip(), "", *lost]
    lines += ["", "## Why, and what comes next", "", *why(missed)] if why(missed) else []
    for name, alternative in ALT.items():
        if name in drawn:
            lines += ["", f"![{alternative}]({name})"]
    lines += ["", "## The machine", "", *(f"- {name}: {what}" for name, what in machine.items())]
    lines += ["", "## The figures", *tables(groups), ""]
    lines += [*(costs and ["## What it costs", "", ABOUT, "", *costs, ""])]
    lines += ["## How to read this", "", NOTE]
    left = [f"- {note}" for note in notes(groups)]
    return "\n".join([*lines, *(left and ["", "Left out:", "", *left]), ""])
