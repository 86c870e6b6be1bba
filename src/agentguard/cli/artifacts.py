"""`agentguard artifacts`: what was made once and is kept, how often it was found, and its removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..model import dollars
from .output import Column, show_list
from .shapes import iso
from .shell import CODES, Group, careful, confirmed, lasting, say, shell
from .text import count, escaped, instant

if TYPE_CHECKING:
    from ..artifacts import Artifact, Rate

_LISTED = (
    "JSON keys: tenant, kind, version, digest, bytes, cost_usd, made_at, expires_at, run_id,"
    " intact."
)
_RATED = "JSON keys: tenant, kind, version, hits, misses, share, saved_usd."


@click.group("artifacts", cls=Group)
def artifacts() -> None:
    """Artifacts that functions have cached: list, rates, prune."""


@artifacts.command("list", epilog=_LISTED)
@click.option("--kind", metavar="NAME", help="Only of this kind.")
@click.option("--limit", default=100, show_default=True, metavar="N", help="At most so many.")
def list_artifacts(kind: str | None, limit: int) -> None:
    """List what is kept, the newest first, without its values."""
    with shell().guard() as guard:
        found = guard.artifacts.list(kind, tenant=shell().tenant, limit=limit)
    show_list(found, _artifact_json, _LIST, "no artifacts are kept")


def _artifact_json(artifact: Artifact) -> dict[str, Any]:
    return {
        "tenant": artifact.tenant, "kind": artifact.kind, "version": artifact.version,
        "digest": artifact.digest, "bytes": artifact.size,
        "cost_usd": None if artifact.cost is None else str(dollars(artifact.cost)),
        "made_at": iso(artifact.made_at), "expires_at": iso(artifact.expires_at),
        "run_id": artifact.run_id, "intact": artifact.intact,
    }  # fmt: skip


def _cost(artifact: Artifact) -> str:
    return "-" if artifact.cost is None else str(dollars(artifact.cost))


_LIST: list[Column[Artifact]] = [
    Column("kind", lambda a: escaped(a.kind), flex=12),
    Column("version", lambda a: escaped(a.version), flex=8),
    Column("tenant", lambda a: escaped(a.tenant), flex=6, spare=2),
    Column("digest", lambda a: a.digest[:12], spare=3),
    Column("bytes", lambda a: str(a.size), right=True),
    Column("USD", _cost, right=True),
    Column("made", lambda a: instant(a.made_at)),
    Column("expires", lambda a: instant(a.expires_at) if a.expires_at else "-", spare=1),
    Column(
        "row", lambda a: "as written" if a.intact else "damaged",
        state=lambda a: "ok" if a.intact else "failed",
    ),
]  # fmt: skip


@artifacts.command("rates", epilog=_RATED)
def rates() -> None:
    """Show how often artifacts were found, and what that saved."""
    with shell().guard() as guard:
        found = guard.artifacts.rates(tenant=shell().tenant)
    show_list(found, _rate_json, _RATES, "no look-ups are counted")


def _rate_json(rate: Rate) -> dict[str, Any]:
    return {
        "tenant": rate.tenant, "kind": rate.kind, "version": rate.version, "hits": rate.hits,
        "misses": rate.misses, "share": str(rate.share), "saved_usd": str(rate.saved_usd),
    }  # fmt: skip


_RATES: list[Column[Rate]] = [
    Column("kind", lambda r: escaped(r.kind), flex=12),
    Column("version", lambda r: escaped(r.version), flex=8),
    Column("tenant", lambda r: escaped(r.tenant), flex=6, spare=1),
    Column("hits", lambda r: str(r.hits), right=True),
    Column("misses", lambda r: str(r.misses), right=True),
    Column("share", lambda r: f"{r.share * 100:.1f} %", right=True),
    Column("saved USD", lambda r: str(r.saved_usd), right=True),
]


@artifacts.command("prune", epilog=CODES)
@click.option("--kind", metavar="NAME", help="Of this kind.")
@click.option("--only-version", metavar="TEXT", help="Of this version.")
@click.option("--older-than", metavar="TIME", callback=lasting,
              help="Made longer ago than this, such as 30d.")  # fmt: skip
@click.option("--expired", is_flag=True, help="Whose time is over.")
@careful
def prune(dry_run: bool, yes: bool, **which: Any) -> None:  # noqa: FBT001 - click
    """Remove artifacts; each condition that is given must hold. Counts stay."""
    if not any(which.values()):
        raise click.UsageError(
            "say which: --kind, --only-version, --older-than or --expired; --older-than 1s is all"
        )
    wish: dict[str, Any] = {"version": which.pop("only_version"), "tenant": shell().tenant, **which}
    with shell().guard() as guard:
        number = guard.artifacts.prune(**wish, dry_run=True)
        if confirmed(f"remove {count(number, 'artifact')}", dry_run=dry_run, yes=yes):
            say(f"{count(guard.artifacts.prune(**wish), 'artifact')} removed")
