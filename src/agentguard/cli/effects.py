"""`agentguard effects`: the effect ledger, and rulings on what is in doubt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ..canonical import loads
from ..ledger.compensating import REFUTED, UNDONE
from ..model import EffectState
from .loading import effect_named, now, run_named
from .output import Column, Line, show_list, show_one
from .shapes import EffectJson, effect_json, keys
from .shell import CODES, Group, decided_by, say, shell
from .steps import undo_of
from .text import ago, capped, escaped, instant, money, result, short, value, words

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from ..guard import Guard
    from ..model import Effect

RULINGS = ("happened", "not_happened", "failed")


@click.group("effects", cls=Group)
def effects() -> None:
    """Effects of tools: list, show, resolve what is in doubt."""


@effects.command("list", epilog=keys(EffectJson))
@click.option(
    "--state", type=click.Choice([state.value for state in EffectState]), help="Only these."
)
@click.option("--run", metavar="RUN", help="Only those of this run.")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many."
)
def list_effects(state: str | None, run: str | None, limit: int) -> None:
    """List effects, newest first; --state in_doubt lists what needs a ruling."""
    with shell().guard() as guard:
        name = run_named(guard, run).id if run else None
        found = guard.effects.list(state, run_id=name, tenant=shell().tenant, limit=limit)
        none = f"no effect is {words(state)}" if state else "no effects yet"
        show_list(
            found,
            effect_json,
            effect_columns(now(guard)),
            f"{none}; agentguard runs list shows runs",
        )


def effect_columns(at: dt.datetime) -> list[Column[Effect]]:
    """Return the columns of a list of effects."""
    return [
        Column("effect", lambda e: escaped(e.id), lambda e: short(e.id)),
        Column("tool", lambda e: escaped(e.tool), flex=8),
        Column("state", lambda e: words(e.state.value), state=lambda e: e.state.value),
        Column("why", lambda e: words(e.doubt_reason or _mark(e) or "-"), state=_mark),
        Column("run", lambda e: escaped(e.run_id), flex=8),
        Column("step", lambda e: str(e.step), right=True),
        Column("starts", lambda e: str(e.fence), right=True, spare=3),
        Column("cost", lambda e: money(e.cost_usd) if e.cost_usd else "-", right=True, spare=2),
        Column(
            "created", lambda e: instant(e.created_at), lambda e: ago(e.created_at, at), spare=1
        ),
    ]


def _mark(effect: Effect) -> str:
    """Return what has become of an effect since it happened."""
    return effect.result_state or "" if effect.result_state in (REFUTED, UNDONE) else ""


@effects.command("show", epilog=keys(EffectJson))
@click.argument("effect")
def show(effect: str) -> None:
    """Show EFFECT, and the commands that rule on it if it is in doubt."""
    with shell().guard() as guard:
        row = effect_named(guard, effect)
        show_one(effect_json(row), lambda: _lines(guard, row))


def _lines(guard: Guard, row: Effect) -> Iterator[Line]:
    at = now(guard)
    why = f": {words(row.doubt_reason)}" if row.doubt_reason else ""
    yield Line("effect", escaped(row.id))
    yield Line("state", words(row.state.value) + why, row.state.value)
    yield Line("tool", f"{escaped(row.tool)}, {row.kind}, contract {escaped(row.contract_version)}")
    yield Line("run", f"{escaped(row.run_id)}, step {row.step}: agentguard runs show"
                      f" {escaped(row.run_id)} --step {row.step}")  # fmt: skip
    yield Line("starts", f"fence {row.fence}, attempt {row.attempt}")
    yield Line("payload", escaped(row.payload_hash))
    if row.approval_id:
        yield Line("approval", escaped(row.approval_id))
    yield Line("created", f"{instant(row.created_at)} ({ago(row.created_at, at)})")
    yield Line("started", instant(row.started_at))
    yield Line("ended", instant(row.finished_at))
    yield Line(
        "result", result(row.result) if row.result else f"({words(row.result_state or 'none')})"
    )
    if row.error:
        yield Line("error", capped(value(dict(row.error)), 500), "failed")
    if row.late:
        yield Line("late", f"an answer came after somebody ruled: {value(dict(row.late))}", "note")
    yield Line("cost", money(row.cost_usd))
    yield Line("undo", undo_of(row.undo))
    yield from _next(row)


def _next(row: Effect) -> Iterator[Line]:
    if row.state is not EffectState.IN_DOUBT:
        return
    start = f"agentguard effects resolve {short(row.id)}"
    yield Line("", "Look in the tool's backend for this effect id, then rule:")
    yield Line("it did", f"{start} happened --by YOU --reason WHY")
    yield Line("it did not", f"{start} not_happened --by YOU --reason WHY   (it may start again)")
    yield Line("give up", f"{start} failed --by YOU --reason WHY   (it never starts again)")


@effects.command("resolve", epilog=CODES)
@click.argument("effect")
@click.argument("ruling", type=click.Choice(RULINGS))
@decided_by
@click.option("--result", "result_json", metavar="JSON",
              help="For happened: what later callers get as its result.")  # fmt: skip
def resolve(effect: str, ruling: str, by: str, reason: str, result_json: str | None) -> None:
    """Rule on EFFECT in doubt: it happened, did not happen, or failed for good."""
    if not reason.strip():
        raise click.UsageError("a ruling needs --reason: how you know")
    if result_json is not None and ruling != "happened":
        raise click.UsageError("--result belongs to the ruling happened")
    known = None if result_json is None else json_of(result_json, "--result")
    with shell().guard() as guard:
        row = effect_named(guard, effect)
        ruled = guard.effects.resolve(
            row.id, ruling, by=by, reason=reason, result=known, tenant=row.tenant
        )
        say(f"effect {ruled.id} of {ruled.tool} is {words(ruled.state.value)}")
        if shell().output != "text":
            show_one(effect_json(ruled))


def json_of(text: str, where: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        UsageError: it is none.
    """
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise click.UsageError(
            f"{where} is not JSON ({said}): a text needs quotes, as in '\"x\"'"
        ) from None
