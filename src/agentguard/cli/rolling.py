"""`agentguard runs rollback`: undo what a run wrote, the last effect first."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import click

from ..errors import ApprovalExpired, ApprovalRejected, PermissionDenied, RunHalted
from .loading import run_named
from .output import Column, show_list
from .shapes import keys
from .shell import CODES, Command, Exit, careful, confirmed, decided_by, say, shell
from .text import count, escaped, short
from .tools import NAMED, tools_named

if TYPE_CHECKING:
    from ..rollback import Rollback, RolledBack

_STATES = {
    "undone": "succeeded", "already undone": "succeeded", "would be undone": "waiting",
    "waits for approval": "waiting", "in doubt": "in_doubt", "failed": "failed",
    "irreversible": "failed", "no undo declared": "note",
}  # fmt: skip
_REFUSALS = {e.kind for e in (ApprovalRejected, ApprovalExpired, PermissionDenied, RunHalted)}


class RolledBackJson(TypedDict):
    """What became of one effect."""

    tool: str
    step: int
    key: str
    what: str
    detail: str
    because: str
    undo: str


@click.command("rollback", cls=Command, epilog=f"{keys(RolledBackJson)} {CODES}")
@click.argument("run")
@click.option("--step", type=click.IntRange(1), metavar="N", help="Back to this step, included.")
@click.option("--tools", multiple=True, required=True, metavar=NAMED,
              help="Where the tools are; the module is imported.")  # fmt: skip
@click.option("--config", metavar="FILE", type=click.Path(),
              help="The configuration that the run had, if it had one.")  # fmt: skip
@decided_by
@careful
def rollback(
    run: str, step: int | None, tools: tuple[str, ...], config: str | None, by: str, reason: str,
    dry_run: bool, yes: bool,  # noqa: FBT001 - click gives them by name
) -> Exit:  # fmt: skip
    """Undo what RUN wrote, the last effect first, each at most once.

    Stops at the first effect that is in doubt, whose undo fails, or waits for people: once more
    goes on there. What cannot be undone is listed.
    """
    if not reason.strip():
        raise click.UsageError("a rollback needs --reason: it is recorded")
    functions = tools_named(tools)
    with shell().guard(config) as guard:
        found = run_named(guard, run)

        def roll_back(*, dry: bool) -> Rollback:
            return guard.rollback(
                found.id, tools=functions, by=by, reason=reason, step=step, dry_run=dry,
                tenant=found.tenant,
            )  # fmt: skip

        ahead = roll_back(dry=True)
        number = sum(one.what == "would be undone" for one in ahead.effects)
        if dry_run or number == 0:
            _show(ahead)
            say(
                "nothing was changed" if number else "there is nothing to undo; nothing was changed"
            )
            return Exit.DONE if dry_run else _code(ahead)
        if shell().output == "text" and not yes:
            _show(ahead)
        confirmed(f"undo {count(number, 'effect')} of run {found.id}", dry_run=False, yes=yes)
        done = roll_back(dry=False)
        _show(done)
        return _code(done)


def _show(found: Rollback) -> None:
    none = f"run {found.run_id} wrote nothing there; agentguard runs show {found.run_id} --writes"
    show_list(found.effects, _as_json, _COLUMNS, none)
    stop = found.stopped
    if stop is not None:
        say(f"stopped at {stop.tool}, step {stop.step}: {stop.what}; {stop.detail}")


def _as_json(one: RolledBack) -> RolledBackJson:
    return {
        "tool": one.tool, "step": one.step, "key": one.key, "what": one.what,
        "detail": one.detail, "because": one.because, "undo": one.undo,
    }  # fmt: skip


_COLUMNS: list[Column[RolledBack]] = [
    Column("effect", lambda one: escaped(one.key), lambda one: short(one.key)),
    Column("tool", lambda one: escaped(one.tool), flex=8),
    Column("step", lambda one: str(one.step), right=True),
    Column("what", lambda one: one.what, state=lambda one: _STATES[one.what]),
    Column("why", lambda one: escaped(one.detail) or "-", flex=12),
]


def _code(found: Rollback) -> Exit:
    stop = found.stopped
    if stop is None:
        return Exit.DONE
    if stop.what == "waits for approval":
        return Exit.WAITING
    return Exit.REFUSED if stop.because in _REFUSALS else Exit.FAILED
