"""A record with one step of every kind, made without waiting: time is passed in."""

from __future__ import annotations

import datetime as dt
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import unicodedata
from contextlib import suppress
from decimal import Decimal
from fcntl import ioctl
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from agentguard import (
    ApprovalRequired,
    Guard,
    GuardError,
    NoEffect,
    Principal,
    Retry,
    Verdict,
    budget,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)
from agentguard.cli import main
from agentguard.cli.shell import Shell

THREE_AM = dt.datetime(2026, 3, 1, 3, 0, tzinfo=dt.UTC)
EVIL = "pay\x1b[2J\x9b31m\u202egnp.exe\u200b\u2066\U000e0041\x07\r\nok"
"""Clears the screen, colours, turns the direction of reading, hides and rings."""


class Clock:
    """Time that only passes when a test says so."""

    def __init__(self, start: dt.datetime = THREE_AM) -> None:
        self.micros = int(start.timestamp() * 1_000_000)

    def now(self) -> int:
        """Return microseconds since the epoch."""
        return self.micros

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.micros += int(seconds * 1_000_000)


_TRIES: dict[str, int] = {}


def confirmed(arguments: dict[str, Any], result: Any) -> Verdict:
    """Find the refund in the books."""
    del arguments, result
    return Verdict(passed=True, reason="it is in the books")


@tool_contract(effect="read")
def look_up(ticket_id: str) -> str:
    """Look a ticket up."""
    return f"ticket {ticket_id}"


@tool_contract(effect="write", retry=Retry(attempts=3, wait=0.0, max_wait=0.0))
@idempotent(key="refund:{ticket_id}")
@requires_approval(when="amount_usd > 50", roles=["finance"], allow_edit=True, expires="2h")
@budget(max_spend_usd="500", cost="amount_usd")
@verified_by(confirmed)
def refund(ticket_id: str, amount_usd: Decimal, note: str = "") -> dict[str, Any]:
    """Give money back."""
    del note
    tries = _TRIES[ticket_id] = _TRIES.get(ticket_id, 0) + 1
    if ticket_id == "T-retried" and tries < 3:
        raise NoEffect("the backend is busy")
    if ticket_id == "T-lost":
        raise RuntimeError("connection reset")
    return {"id": f"rf_{ticket_id}", "usd": amount_usd}


@tool_contract(effect="write", irreversible=True, sensitive=["secret"])
@idempotent(per="call")
@requires_approval(quorum=2)
def send_mail(to: str, secret: str) -> str:
    """Send a mail, which nobody can call back."""
    del secret
    return f"sent to {to}"


def attempt(tool: Any, *arguments: Any) -> Any:
    """Call a tool as an agent does; a refusal is an answer too."""
    try:
        return tool(*arguments)
    except ApprovalRequired as waiting:
        return waiting.approval
    except GuardError as refusal:
        return refusal


def model_call() -> None:
    """Ask the model once."""
    run = current_run()
    call = run.model_started(model="planner", messages=[{"role": "user", "content": "refund T-1"}])
    run.model_finished(call, output="I call refund", input_tokens=800, output_tokens=100)


def guard_of(path: Path, clock: Clock) -> Guard:
    """Open a store for writing."""
    principal = Principal(agent="support", subject="dana@shop")
    prices = {"planner": (10, 30)}
    return Guard(f"sqlite:///{path}", clock=clock, principal=principal, prices=prices)


STEPS = {
    "model": 1, "read": 2, "written": 3, "duplicate": 4, "conflict": 5, "approved": 6,
    "retried": 7, "rejected": 8, "edited": 9, "twice": 10, "pending": 11, "mail": 12, "doubt": 13,
}  # fmt: skip
"""Which step of run r-1 shows what."""


def fill(path: Path, clock: Clock) -> None:
    """Make run r-1 with all that can happen to a step, and two other runs."""
    _TRIES.clear()
    guard = guard_of(path, clock)
    waits = first_part(guard, clock)
    clock.tick(170)
    decide = guard.approvals.decide
    decide(waits["approved"].id, "approve", by="maria", roles=["finance"], reason="matches ticket")
    decide(waits["rejected"].id, "reject", by="maria", roles=["finance"], reason="too much")
    decide(waits["edited"].id, "edit", by="ann", roles=["finance"], edits={"amount_usd": "60"})
    decide(waits["edited"].id, "approve", by="bob", roles=["finance"])
    clock.tick(30)
    second_part(guard, clock)
    other_runs(guard)
    guard.close()


def first_part(guard: Guard, clock: Clock) -> dict[str, Any]:
    """Run until three calls wait for people."""
    waits: dict[str, Any] = {}
    with guard.run(
        "refund_and_close_ticket", run_id="r-1", max_steps=20, max_spend_usd="0.40"
    ) as run:
        model_call()
        look_up("T-1")
        refund("T-1", Decimal(20))
        refund("T-1", Decimal(20))
        attempt(refund, "T-1", Decimal(30))
        waits["approved"] = attempt(refund, "T-2", Decimal("75.50"), "thanks")
        refund("T-retried", Decimal(10))
        waits["rejected"] = attempt(refund, "T-9", Decimal(400))
        waits["edited"] = attempt(refund, "T-3", Decimal(90))
        for _delivery in range(2):
            with run.tool_call("call_7"):
                refund("T-5", Decimal(5))
        clock.tick(1)
    return waits


def second_part(guard: Guard, clock: Clock) -> None:
    """Resume, and leave a call open whose text is hostile."""
    with guard.run("refund_and_close_ticket", run_id="r-1"):
        refund("T-2", Decimal("75.50"), "thanks")
        attempt(refund, "T-9", Decimal(400))
        refund("T-3", Decimal(90))
        clock.tick(2)
        attempt(refund, "T-6", Decimal(99), EVIL)
        attempt(send_mail, "eve@example.test", "swordfish")
        attempt(refund, "T-lost", Decimal(10))  # the last one: no write starts after a doubt


def other_runs(guard: Guard) -> None:
    """Make a run that failed, one that loops into its budget, and one of another tenant."""
    with suppress(ValueError), guard.run(f"triage {EVIL}", run_id="broken"):
        raise ValueError(EVIL)
    with guard.run("triage", run_id="busy", max_steps=2):
        look_up("T-1")
        look_up("T-2")
        attempt(look_up, "T-3")
    acme = Principal(agent="support", tenant="acme")
    with guard.run("triage", run_id="elsewhere", principal=acme):
        look_up("T-1")


def call(path: Path, clock: Clock, *words: str, **options: Any) -> Result:
    """Run the command in this process; stdout is no terminal."""
    shell = Shell(clock=clock, store=f"sqlite:///{path}")
    return CliRunner().invoke(main, list(words), obj=shell, **options)


def unseen(text: str) -> set[str]:
    """Return the characters of a printout that steer, hide or turn."""
    kinds = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return {char for char in text if char != "\n" and unicodedata.category(char) in kinds}


def on_terminal(
    *words: str, columns: int = 110, lines: int = 60, answer: str = "", **variables: str
) -> tuple[int, str]:
    """Run the command on a pseudo-terminal of its own; return its exit code and what it drew."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
    environment = plain | {"TERM": "xterm-256color", **variables}
    process = subprocess.Popen(
        [sys.executable, "-m", "agentguard", *words],
        stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    os.write(master, answer.encode())
    drawn = _drain(master)
    os.close(master)
    return process.wait(), drawn


def _drain(master: int) -> str:
    """Read until the other side is closed."""
    found = b""
    while select.select([master], [], [], 60)[0]:
        try:
            piece = os.read(master, 65_536)
        except OSError:  # Linux says so when the last writer is gone
            break
        if not piece:
            break
        found += piece
    return found.decode().replace("\r\n", "\n")
