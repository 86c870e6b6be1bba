"""`agentguard costs`: what workflows spend, and what one that succeeded costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

import click

from ..record import NamedSpending, Spending, named, runs_that_spent, spent
from .output import Column, show_list
from .shapes import keys, usd
from .shell import Command, lasting, shell
from .text import count, escaped, money

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

_SINCE = "30d"


class SpendingJson(TypedDict):
    """What the runs of a workflow spent; null is not known, or nothing to divide by yet."""

    tenant: str
    workflow: str
    runs: int
    unfinished: int
    completed: int
    verified: int
    usd: str | None
    complete: bool
    unknown_runs: int
    work_usd: str | None
    rework_usd: str | None
    waiting_usd: str | None
    retry_usd: str | None
    per_completed_usd: str | None
    per_verified_usd: str | None
    median_usd: str | None
    p95_usd: str | None
    input_tokens: int
    cached_tokens: int
    cached_tokens_share: str | None
    artifact_hits: int
    artifact_misses: int
    artifact_hit_rate: str | None
    saved_usd: str


class NamedSpendingJson(TypedDict):
    """What went to one model or tool; null is not known."""

    tenant: str
    name: str | None
    amounts: int
    usd: str | None
    complete: bool
    work_usd: str | None
    rework_usd: str | None
    waiting_usd: str | None
    retry_usd: str | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cached_tokens_share: str | None


_HELP = f"""{keys(SpendingJson)}

By model or tool: {keys(NamedSpendingJson).removeprefix("JSON keys: ")}

Work is what stands; waiting is people's time; rework is the rest: second and failed attempts, what
was refuted or undone, model calls after a failed verdict, and all of runs that failed, were halted
or cancelled. Cost per completed run: all that all runs spent, failed ones included, divided by the
runs that succeeded. Per verified run: the same, divided by those of them that a verifier confirmed,
with no last word a no, and nothing refuted and not undone, or in doubt. "at least": some of it is
not known. "-": not known, or nothing to divide by yet.
"""


@click.command("costs", cls=Command, epilog=_HELP)
@click.option("--workflow", metavar="NAME", help="Only this one.")
@click.option("--since", metavar="TIME", callback=lasting,
              help=f"Runs that began within it; {_SINCE} by default.")  # fmt: skip
@click.option("--last", type=click.IntRange(1), metavar="N",
              help="The newest N runs of each workflow.")  # fmt: skip
@click.option("--by", type=click.Choice(["workflow", "model", "tool"]), default="workflow",
              show_default=True, help="What a row is for.")  # fmt: skip
def costs(workflow: str | None, since: str | None, last: int | None, by: str) -> None:
    """Tell what workflows spent, and what a run that succeeded, or was verified, costs."""
    within = since or (None if last else _SINCE)
    none = f"no runs {_said(within)}; agentguard runs list shows what there is"
    chosen: dict[str, Any] = {
        "workflow": workflow, "since": within, "last": last, "tenant": shell().tenant,
    }  # fmt: skip
    with shell().guard() as guard:
        if by == "workflow":
            rows = spent(guard.store, **chosen)
            show_list(rows, _json, _columns(rows), none)
            return
        runs = list(runs_that_spent(guard.store, **chosen))
    shares = named(runs, cast("Literal['model', 'tool']", by))
    show_list(shares, _named_json, _named_columns(by, shares), none if not runs else
              f"nothing went to a {by} in {count(len(runs), 'run')}")  # fmt: skip


def _said(within: str | None) -> str:
    return f"within {within}" if within else "yet"


def _json(row: Spending) -> SpendingJson:
    return {
        "tenant": row.tenant, "workflow": row.workflow, "runs": row.runs,
        "unfinished": row.unfinished, "completed": row.completed, "verified": row.verified,
        "usd": _known(row.usd, row.complete), "complete": row.complete, "unknown_runs": row.unknown_runs,
        "work_usd": _known(row.work, row.complete), "rework_usd": _known(row.rework, row.complete),
        "waiting_usd": _known(row.waiting, row.complete), "retry_usd": _known(row.retry, row.complete),
        "per_completed_usd": _each(row, row.per_completed),
        "per_verified_usd": _each(row, row.per_verified),
        "median_usd": _each(row, row.median_usd), "p95_usd": _each(row, row.p95_usd),
        "input_tokens": row.input_tokens, "cached_tokens": row.cached_tokens,
        "cached_tokens_share": _usd(row.cached_tokens_share),
        "artifact_hits": row.artifact_hits, "artifact_misses": row.artifact_misses,
        "artifact_hit_rate": _usd(row.artifact_hit_rate), "saved_usd": usd(row.saved_usd),
    }  # fmt: skip


def _named_json(row: NamedSpending) -> NamedSpendingJson:
    return {
        "tenant": row.tenant, "name": row.name or None, "amounts": row.amounts,
        "usd": _known(row.usd, row.complete), "complete": row.complete,
        "work_usd": _known(row.work, row.complete), "rework_usd": _known(row.rework, row.complete),
        "waiting_usd": _known(row.waiting, row.complete),
        "retry_usd": _known(row.retry, row.complete), "input_tokens": row.input_tokens,
        "cached_tokens": row.cached_tokens, "output_tokens": row.output_tokens,
        "cached_tokens_share": _usd(row.cached_tokens_share),
    }  # fmt: skip


def _known(amount: Decimal, complete: bool) -> str | None:  # noqa: FBT001 - a row's own word
    return usd(amount) if complete or amount else None


def _each(row: Spending, amount: Decimal | None) -> str | None:
    return None if amount is None else _known(amount, row.complete)


def _usd(amount: Decimal | None) -> str | None:
    return None if amount is None else usd(amount)


def _columns(rows: list[Spending]) -> list[Column[Spending]]:
    tenants = len({row.tenant for row in rows}) > 1
    return [
        *([Column[Spending]("tenant", lambda row: escaped(row.tenant), flex=6)] if tenants else []),
        Column("workflow", lambda row: escaped(row.workflow), flex=8),
        Column("runs", lambda row: str(row.runs), right=True),
        Column("succeeded", lambda row: str(row.completed), right=True),
        Column("verified", lambda row: str(row.verified), right=True),
        _money("per verified", lambda row: row.per_verified),
        _money("per succeeded", lambda row: row.per_completed, spare=1),
        _money("spent", lambda row: row.usd),
        _money("work", lambda row: row.work, spare=2),
        _money("rework", lambda row: row.rework, spare=2),
        _money("waiting", lambda row: row.waiting, spare=2),
        _money("retries", lambda row: row.retry, spare=5),
        _money("median", lambda row: row.median_usd, spare=4),
        _money("p95", lambda row: row.p95_usd, spare=3),
        Column("cached", lambda row: _percent(row.cached_tokens_share), right=True, spare=6),
        Column("artifacts", lambda row: _percent(row.artifact_hit_rate), right=True, spare=7),
    ]  # fmt: skip


def _money(title: str, of: Callable[[Any], Decimal | None], spare: int = 0) -> Column[Any]:
    return Column(title, lambda row: _at_least(of(row), row.complete), right=True, spare=spare)


def _at_least(amount: Decimal | None, complete: bool) -> str:  # noqa: FBT001 - a row's own word
    """Return an amount; of what is not wholly known it is the least, and nothing known is no zero."""
    if amount is None or (not complete and not amount):
        return "-"
    return money(amount) if complete else f"at least {money(amount)}"


def _percent(share: Decimal | None) -> str:
    return "-" if share is None else f"{share * 100:.0f} %"


def _named_columns(by: str, rows: list[NamedSpending]) -> list[Column[NamedSpending]]:
    tenants = len({row.tenant for row in rows}) > 1
    tokens: list[Column[NamedSpending]] = [
        Column("tokens in", lambda row: str(row.input_tokens), right=True, spare=1),
        Column("cached", lambda row: _percent(row.cached_tokens_share), right=True, spare=4),
        Column("tokens out", lambda row: str(row.output_tokens), right=True, spare=2),
    ]
    return [
        *([Column[Any]("tenant", lambda row: escaped(row.tenant), flex=6)] if tenants else []),
        Column(by, lambda row: escaped(row.name) or "(outside calls)", flex=8),
        Column("calls" if by == "model" else "amounts", lambda row: str(row.amounts), right=True),
        _money("spent", lambda row: row.usd),
        _money("work", lambda row: row.work),
        _money("rework", lambda row: row.rework),
        *([] if by == "model" else [_money("waiting", lambda row: row.waiting, spare=1)]),
        *([] if by == "model" else [_money("retries", lambda row: row.retry, spare=2)]),
        *(tokens if by == "model" else []),
    ]
