"""`agentguard approvals`: calls that wait for people, and what people say about them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from .effects import json_of
from .loading import approval_named, effect_named, now
from .output import Column, Line, show_list, show_one
from .shapes import ApprovalJson, approval_json, keys
from .shell import CODES, Group, decided_by, say, shell
from .steps import undo_of
from .text import (
    ago,
    arguments,
    count,
    escaped,
    instant,
    person,
    plain_result,
    quoted,
    result,
    short,
    value,
    words,
)
from .tools import NAMED, tools_named
from .watching import watch_approval, watch_inbox

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterator, Mapping

    from ..guard import Guard
    from ..model import Approval

STATUSES = ("pending", "approved", "rejected", "expired", "used", "superseded", "all")
_MONEY = re.compile(r"amount|usd|eur|price|cost|total|sum|fee|salary|balance")
_RECIPIENT = re.compile(r"^to$|recipient|payee|customer|email|mail|account|iban|address|phone|user")


@click.group("approvals", cls=Group)
def approvals() -> None:
    """Calls that wait for people: list, show, approve, reject, edit, execute, watch."""


@approvals.command("list", epilog=keys(ApprovalJson))
@click.option(
    "--status",
    type=click.Choice(STATUSES),
    default="pending",
    show_default=True,
    help="Only these.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many."
)
def list_approvals(status: str, limit: int) -> None:
    """List what waits for a person, oldest first."""
    with shell().guard() as guard:
        wanted = None if status == "all" else status
        found = guard.approvals.list(wanted, tenant=shell().tenant, limit=limit)
        show_list(found, approval_json, _columns(now(guard)), _none(status))


def _none(status: str) -> str:
    if status == "pending":
        return "nothing waits for a person; agentguard approvals list --status all shows what was decided"
    return "no such approvals; agentguard runs list shows runs"


def _columns(at: dt.datetime) -> list[Column[Approval]]:
    return [
        Column("approval", lambda a: escaped(a.id), lambda a: short(a.id)),
        Column("status", lambda a: a.status, state=lambda a: a.status, spare=1),
        Column("what", what, flex=24),
        Column("rule", lambda a: escaped(a.rule), flex=8),
        Column("for", lambda a: escaped(a.on_behalf_of or a.requested_by), flex=8, spare=3),
        Column("run", lambda a: f"{escaped(a.run_id)} step {a.step}"),
        Column("asked", lambda a: instant(a.created_at), lambda a: ago(a.created_at, at), spare=2),
        Column("expires", lambda a: instant(a.expires_at), lambda a: ago(a.expires_at, at)),
    ]


def what(approval: Approval) -> str:
    """Return the call that would run, its money and recipients first."""
    return f"{escaped(approval.tool)} {arguments(dict(_ordered(approval)))}"


def _ordered(approval: Approval) -> list[tuple[str, Any]]:
    """What the rule looked at first, then money, then who gets it, then the rest."""

    def rank(name: str) -> int:
        ruled = re.search(rf"\b{re.escape(name)}\b", approval.rule)
        lower = name.lower()
        return 0 if ruled else 1 if _MONEY.search(lower) else 2 if _RECIPIENT.search(lower) else 3

    return sorted(approval.arguments.items(), key=lambda item: rank(item[0]))


@approvals.command("show", epilog=keys(ApprovalJson))
@click.argument("approval")
def show(approval: str) -> None:
    """Show APPROVAL: what will run, why it was stopped, and how to decide."""
    with shell().guard() as guard:
        row = approval_named(guard, approval)
        undo = effect_named(guard, row.effect_id).undo
        seen = guard.approvals.proposal(row.id, tenant=row.tenant)
        show_one(approval_json(row, undo, seen), lambda: _lines(guard, row, undo, seen))


def _lines(
    guard: Guard, row: Approval, undo: str | None, seen: Mapping[str, Any] | None
) -> Iterator[Line]:
    at = now(guard)
    yield Line(
        "will run" if row.status in ("pending", "approved") else "asked to run", escaped(row.tool)
    )
    for name, item in _ordered(row):
        was = "   (edited)" if name in (row.edits or {}) else ""
        yield Line(f"  {escaped(name)}", value(item) + was, "note" if was else "")
    yield from _proposal(seen or {})
    yield Line("undo", undo_of(undo), "failed" if undo == "irreversible" else "")
    yield Line("stopped by", f"the rule: {escaped(row.rule)}")
    whose = f" on behalf of {escaped(row.on_behalf_of)}" if row.on_behalf_of else ""
    yield Line("asked by", f"{escaped(row.requested_by)}{whose}")
    yield Line("run", f"{escaped(row.run_id)}, step {row.step}, asked {instant(row.created_at)}"
                      f" ({ago(row.created_at, at)})")  # fmt: skip
    yield Line("payload", f"{escaped(row.payload_hash)}, generation {row.generation}")
    yield Line(
        "versions",
        f"contract {escaped(row.contract_version)}, policy {escaped(row.policy_version)}",
    )
    yield Line("expires", f"{instant(row.expires_at)} ({ago(row.expires_at, at)})")
    yield Line("needs", _needs(row))
    yield Line("status", row.status, row.status)
    if row.edited_by:
        changed = ", ".join(map(escaped, row.edits or ()))
        yield Line(
            "edited", f"by {escaped(row.edited_by)}: {changed}; somebody else has to approve"
        )
    for decision in row.decisions:
        why = f" {quoted(decision.reason)}" if decision.reason else ""
        who = person(decision.person, decision.roles)
        yield Line("decision", f"{words(decision.decision)} by {who} {instant(decision.at)}{why}")
    yield from _commands(row)


def _proposal(seen: Mapping[str, Any]) -> Iterator[Line]:
    """Yield what the tool's own readers say of the world before the call, and after it."""
    for label, name in (("now", "evidence"), ("would change", "diff")):
        found = seen.get(name)
        if isinstance(found, dict) and "failed" in found:
            yield Line(label, f"not known, the reader failed: {escaped(found['failed'])}", "failed")
        elif name == "evidence" and found is not None:
            yield Line(label, value(found.get("seen")))
        elif name == "diff" and found is not None:
            yield from _changes(label, found.get("fields", {}))


def _changes(label: str, fields: Mapping[str, Any]) -> Iterator[Line]:
    yield Line(label, "nothing" if not fields else "")
    for field, (before, after) in fields.items():
        yield Line(f"  {escaped(field)}", f"{value(before)} -> {value(after)}", "note")


def _needs(row: Approval) -> str:
    roles = f" with the role {' or '.join(map(escaped, row.roles))}" if row.roles else ""
    people = "a person" if row.quorum == 1 else f"{row.quorum} different people"
    return f"{people}{roles}, not {escaped(row.requested_by)}" + (
        f" nor {escaped(row.on_behalf_of)}" if row.on_behalf_of else ""
    )


def _commands(row: Approval) -> Iterator[Line]:
    if row.status == "approved" and row.stage:
        yield Line(
            "to execute", f"agentguard approvals execute {short(row.id)} --by YOU --tools MODULE"
        )
    if row.status != "pending":
        return
    role = f" --role {escaped(row.roles[0])}" if row.roles else ""
    rest = f"{short(row.id)} --by YOU{role} --generation {row.generation}"
    yield Line("to approve", f"agentguard approvals approve {rest}")
    yield Line("to reject", f"agentguard approvals reject {rest} --reason WHY")
    if row.allow_edit:
        name = escaped(next(iter(dict(_ordered(row))), "NAME"))
        yield Line("to edit", f"agentguard approvals edit {rest} --set {name}=JSON")


def _deciding(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (_GENERATION, _ROLES, decided_by, click.argument("approval")):
        command = option(command)
    return command


_GENERATION = click.option(
    "--generation", type=click.IntRange(1), metavar="N", help="Refuse if the call was edited since."
)
_ROLES = click.option(
    "--role", "roles", multiple=True, metavar="ROLE",
    help="A role that this person holds; may be given more than once.",
)  # fmt: skip


@approvals.command("approve", epilog=CODES)
@_deciding
def approve(approval: str, **said: Any) -> None:
    """Approve exactly the call that APPROVAL shows."""
    _decide(approval, "approve", **said)


@approvals.command("reject", epilog=CODES)
@_deciding
def reject(approval: str, **said: Any) -> None:
    """Reject APPROVAL; the agent is told --reason."""
    if not said["reason"].strip():
        raise click.UsageError("a rejection needs --reason: the agent is told, so it can do better")
    _decide(approval, "reject", **said)


@approvals.command("edit", epilog=CODES)
@_deciding
@click.option("--set", "changes", multiple=True, required=True, metavar="NAME=JSON",
              help="An argument and its new value; may be given more than once.")  # fmt: skip
def edit(approval: str, changes: tuple[str, ...], **said: Any) -> None:
    """Change arguments of APPROVAL; somebody else then approves the changed call."""
    edits = dict(_change(change) for change in changes)
    _decide(approval, "edit", edits=edits, **said)


def _change(text: str) -> tuple[str, Any]:
    name, sign, new = text.partition("=")
    if not sign or not name:
        raise click.UsageError(f"--set {text}: write NAME=JSON, such as amount_usd='\"60\"'")
    return name, json_of(new, f"--set {name}")


def _decide(
    name: str, decision: str, by: str, reason: str, roles: tuple[str, ...], generation: int | None,
    edits: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    with shell().guard() as guard:
        row = approval_named(guard, name)
        decided = guard.approvals.decide(
            row.id, decision, by=by, reason=reason, roles=roles, edits=edits,
            generation=generation, tenant=row.tenant,
        )  # fmt: skip
        say(f"{decided.id} {_said(decided, decision)}")
        if shell().output != "text":
            show_one(approval_json(decided))


def _said(row: Approval, decision: str) -> str:
    if decision == "edit":
        return f"was edited: generation {row.generation} now waits for somebody else's yes"
    if row.status == "pending":
        more = row.quorum - sum(d.decision == "approve" for d in row.decisions)
        return f"has your yes; it needs {count(more, 'more person').replace('persons', 'people')}"
    if row.status == "approved" and row.stage:
        mend = f"agentguard approvals execute {row.id} --by YOU --tools MODULE runs {row.tool}"
        return f"is approved: {mend}"
    if row.status == "approved":
        return f"is approved: {row.tool} starts when run {row.run_id} goes on"
    return f"is {row.status}: {row.tool} will not run"


@approvals.command("execute", epilog=f"JSON keys: id, tool, run_id, step, state, result. {CODES}")
@click.argument("approval")
@click.option("--by", required=True, envvar="AGENTGUARD_BY", show_envvar=True, metavar="PERSON",
              help="Who does this; not who asked for it.")  # fmt: skip
@click.option("--tools", multiple=True, required=True, metavar=NAMED,
              help="Where the tool is; the module is imported.")  # fmt: skip
@click.option("--config", metavar="FILE", type=click.Path(),
              help="The configuration that the run had, if it had one.")  # fmt: skip
def execute(approval: str, by: str, tools: tuple[str, ...], config: str | None) -> None:
    """Execute the approved draft APPROVAL: exactly the call that it shows, once, in its run."""
    functions = tools_named(tools)
    with shell().guard(config) as guard:
        row = approval_named(guard, approval)
        guard.approvals.execute(row.id, by=by, tools=functions, tenant=row.tenant)
        effect = guard.effects.show(row.effect_id, tenant=row.tenant)
        say(f"{row.tool} was executed: run {effect.run_id}, step {effect.step}")
        data = {"id": row.id, "tool": row.tool, "run_id": effect.run_id, "step": effect.step,
                "state": effect.state.value, "result": plain_result(effect.result)}  # fmt: skip
        shown = "(not kept)" if effect.result is None else result(effect.result)
        show_one(data, lambda: iter([Line("result", shown)]))


@approvals.command("watch", epilog=CODES)
@click.argument("approval", required=False)
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Stop then; exit 4 if one still waits.",
)
def watch(approval: str | None, timeout: float | None) -> int:
    """Wait for APPROVAL to be decided (exit 3 if it was rejected); without one, follow the inbox.

    With -o json or jsonl each line is one approval.
    """
    if approval is None and timeout is None:
        say("following the inbox; Ctrl-C ends it")
    with shell().guard() as guard:
        if approval is None:
            return watch_inbox(guard, timeout)
        return watch_approval(guard, approval, timeout)
