"""Following what happens: the store is asked four times a second for what is new."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from .endings import waits
from .loading import approval_named
from .output import STYLES, console, dumped, is_terminal
from .shapes import approval_json, iso
from .shell import Exit, say, shell
from .text import actor, arguments, escaped, short, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..guard import Guard
    from ..model import Approval, Event, RunInfo

PAUSE = 0.25
_ALL = 100_000
_RUN_ENDS = {
    "succeeded": Exit.DONE, "failed": Exit.FAILED, "halted": Exit.FAILED, "cancelled": Exit.FAILED,
}  # fmt: skip
_ANSWERS = {
    "approved": Exit.DONE, "used": Exit.DONE, "rejected": Exit.REFUSED, "expired": Exit.REFUSED,
    "superseded": Exit.REFUSED,
}  # fmt: skip


def sleep(seconds: float) -> None:
    """Wait; tests let the world turn here instead."""
    time.sleep(seconds)


def clock() -> float:
    """Return seconds that only go forward."""
    return time.monotonic()


def looks(timeout: float | None) -> Iterator[None]:
    """Yield for every look to take, until *timeout* seconds are over."""
    until = None if timeout is None else clock() + timeout
    while True:
        yield
        if until is not None and clock() >= until:
            return
        sleep(PAUSE)


def watch_run(guard: Guard, run: RunInfo, timeout: float | None) -> int:
    """Print a run's events as they come; return the exit code that its end stands for."""
    seen, told = 0, False
    for _ in looks(timeout):
        current = guard.runs.show(run.id, tenant=run.tenant)
        for event in guard.runs.events(run.id, tenant=run.tenant, after=seen):
            seen = event.seq
            _print_event(event)
        if current.status in _RUN_ENDS:
            say(f"run {run.id} {_ended(current)}")
            return _RUN_ENDS[current.status]
        if current.status == "waiting" and not told:
            told = True
            answer = f"agentguard runs answer {run.id} TEXT --by YOU"
            what = answer if waits(current.ending) else "agentguard approvals list"
            say(f"run {run.id} waits for a person: {what}")
    say(f"run {run.id} is still {guard.runs.show(run.id, tenant=run.tenant).status}")
    return Exit.WAITING


def _ended(run: RunInfo) -> str:
    return f"is {run.status}" + (f": {run.error}" if run.error else "")


def event_json(event: Event) -> dict[str, Any]:
    """Return an event as JSON."""
    return {
        "run_id": event.run_id, "seq": event.seq, "at": iso(event.at), "step": event.step,
        "kind": event.kind, "actor": event.actor, "data": dict(event.data),
        "content": None if event.content is None else dict(event.content), "hash": event.hash,
    }  # fmt: skip


def _print_event(event: Event) -> None:
    if shell().output != "text":
        click.echo(dumped(event_json(event)))
        return
    step = "" if event.step is None else str(event.step)
    text = f"{event.at:%H:%M:%S}  {step:>4}  {escaped(event.kind):<19} {_told(event)}".rstrip()
    _print(text, _state(event.kind, event.data))


def _print(text: str, state: str) -> None:
    if is_terminal():
        from rich.text import Text

        console().print(Text(text, STYLES.get(state, "")), no_wrap=True, overflow="ellipsis")
    else:
        click.echo(text)


def _state(kind: str, data: Mapping[str, Any]) -> str:
    known = {"approval.requested": "waiting", "budget.exceeded": "failed", "effect.in_doubt": "in_doubt",
             "attempt.failed": "failed"}  # fmt: skip
    said = data.get("outcome") or data.get("status")
    if data.get("decision") == "deny":
        return "refused"
    return known.get(kind) or (said if isinstance(said, str) else "")


_TOLD = (
    "tool", "model", "decision", "outcome", "status", "rule", "error", "ruling", "budget",
    "verifier", "reason", "plan", "template", "outside", "kind",
)  # fmt: skip


def _told(event: Event) -> str:
    """Return the facts of an event that a person follows."""
    facts = [escaped(str(event.data[name])) for name in _TOLD if event.data.get(name)]
    who = f"by {actor(event.actor)}" if not event.actor.startswith("agent:") else ""
    asked = arguments((event.content or {}).get("arguments"))
    return "  ".join(part for part in (", ".join(facts), who, asked) if part)


def watch_approval(guard: Guard, name: str, timeout: float | None) -> int:
    """Wait until one approval is decided; return the exit code that the answer stands for."""
    approval = approval_named(guard, name)
    for _ in looks(timeout):
        approval = guard.approvals.show(approval.id, tenant=approval.tenant)
        if approval.status in _ANSWERS:
            _print_approval(approval, approval.status)
            return _ANSWERS[approval.status]
    _print_approval(approval, "pending")
    return Exit.WAITING


def watch_inbox(guard: Guard, timeout: float | None) -> int:
    """Print approvals as they come and as they are decided; still waiting ones are exit 4."""
    tenant = shell().tenant
    waiting: dict[tuple[str, str], Approval] = {}
    for _ in looks(timeout):
        current = {
            (a.tenant, a.id): a for a in guard.approvals.list("pending", tenant=tenant, limit=_ALL)
        }
        for place in waiting.keys() - current.keys():
            decided = guard.approvals.show(place[1], tenant=place[0])
            _print_approval(decided, decided.status)
        for place, approval in current.items():
            if place not in waiting or waiting[place].generation != approval.generation:
                _print_approval(approval, "pending")
        waiting = current
    return Exit.WAITING if waiting else Exit.DONE


def _print_approval(approval: Approval, state: str) -> None:
    if shell().output != "text":
        click.echo(dumped(approval_json(approval)))
        return
    who = ", ".join(escaped(decision.person) for decision in approval.decisions)
    by = f" by {who}" if who and state != "pending" else ""
    name = short(approval.id) if is_terminal() else approval.id
    _print(
        f"{name}  {words(state)}{by}  {escaped(approval.tool)} {arguments(approval.arguments)}",
        state,
    )
