"""`agentguard kill`: stop a tool, an agent, a tenant or everything at once."""

from __future__ import annotations

from typing import Any

import click

from ..ledger import circuits, switches
from ..model import moment
from .output import Column, show_list
from .shapes import iso
from .shell import CODES, PlainCommand, careful, confirmed, say, shell
from .text import count, escaped, instant

_KINDS = ("tool", "agent", "tenant")


@click.command("kill", cls=PlainCommand, epilog=f"JSON keys: kind, name, by, reason, at. {CODES}")
@click.option("--tool", metavar="NAME", help="This tool, for everybody.")
@click.option("--agent", metavar="NAME", help="This agent, with all its tools and model calls.")
@click.option("--tenant", metavar="NAME", help="Everybody in this tenant.")
@click.option("--all", "everything", is_flag=True, help="Everything in this store.")
@click.option(
    "--by", envvar="AGENTGUARD_BY", show_envvar=True, metavar="PERSON", help="Who does this."
)
@click.option("--reason", default="", metavar="TEXT", help="Why; whoever is stopped is told.")
@click.option("--lift", is_flag=True, help="Take the switch away again.")
@careful
def kill(by: str | None, reason: str, lift: bool, dry_run: bool, yes: bool, **what: Any) -> None:  # noqa: FBT001 - click
    """Stop something: once this returns, no start of it passes. Without a name: list what is stopped.

    Circuits that are open are listed, too; they close by themselves.
    """
    named = _named(what)
    if shell().tenant:
        raise click.UsageError("with kill, write --tenant after it: it says what to stop")
    if named is None:
        _list()
        return
    if not by or not reason.strip():
        raise click.UsageError("kill needs --by and --reason: whoever is stopped is told")
    kind, name = named
    text = "everything" if kind == "all" else f"the {kind} {name}"
    verb = f"let {text} start again" if lift else f"stop {text}"
    with shell().guard() as guard:
        if lift and not _stands(guard, kind, name):
            say(f"no switch stands over {text}; nothing was changed")
        elif confirmed(verb, dry_run=dry_run, yes=yes):
            target: dict[str, Any] = {kind: name or True}
            guard.kill(**target, by=by, reason=reason, lift=lift)
            say(f"{text} may start again" if lift else f"{text} is stopped; --lift takes that back")


def _named(what: dict[str, Any]) -> tuple[str, str] | None:
    chosen = [(kind, what[kind]) for kind in _KINDS if what[kind] is not None]
    chosen += [("all", "")] if what["everything"] else []
    if len(chosen) > 1:
        raise click.UsageError("kill stops one thing at a time: --tool, --agent, --tenant or --all")
    return chosen[0] if chosen else None


def _stands(guard: Any, kind: str, name: str) -> bool:
    thrown = guard.store.read(switches.thrown)
    return any((switch["kind"], switch["name"]) == (kind, name) for switch in thrown)


def _list() -> None:
    with shell().guard() as guard:
        thrown = guard.store.read(switches.thrown)
        thrown += [_of_circuit(found) for found in guard.store.read(circuits.opened)]
    none = "nothing is stopped; agentguard kill --tool NAME --by YOU --reason WHY stops a tool"
    show_list(thrown, lambda switch: {**switch, "at": iso(moment(switch["at"]))}, _COLUMNS, none)


def _of_circuit(found: dict[str, Any]) -> dict[str, Any]:
    """Return a circuit that stops its tool as a switch is shown: nobody threw it."""
    failed = count(found["failures"], "failure")
    then = f"from {instant(moment(found['until']))} one call tries again"
    if found["state"] == "half_open":
        then = "one call tries whether it works again"
    return {
        "kind": "circuit", "name": found["tool"], "by": f"tenant {found['tenant']}",
        "reason": f"{failed}; {then}", "at": found["opened_at"],
    }  # fmt: skip


_COLUMNS: list[Column[dict[str, Any]]] = [
    Column("stopped", lambda s: s["kind"], state=lambda _: "failed"),
    Column("name", lambda s: escaped(s["name"]) or "-"),
    Column("by", lambda s: escaped(s["by"])),
    Column("reason", lambda s: escaped(s["reason"]), flex=8),
    Column("since", lambda s: instant(moment(s["at"]))),
]
