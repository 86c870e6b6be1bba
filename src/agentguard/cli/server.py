"""What commands say of a store on a database server: what it is, and whether it keeps promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ..ledger import queries
from ..stores import open_store
from ..stores._pg_owner import runtime_folder
from ..stores.schema import VERSION
from .shell import Failure, busy, confirmed, say, shell
from .text import span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..stores._pg_about import About

_SLACK_S = 5.0
Look = tuple[str, Literal["ok", "note", "failed"], str]
"""Name, standing and sentence of a check."""


def info() -> dict[str, Any]:
    """Return what `store info` shows of a store on a server."""
    found = shell().existing_on_server()
    with shell().guard() as guard:
        return {
            "url": found.shown, "path": None, "bytes": found.bytes, "schema": found.schema,
            "newest_schema": VERSION, "file_system": None, "server": name_of(found),
            "counts": guard.store.read(queries.counts),
        }  # fmt: skip


def name_of(found: About) -> str:
    """Return what answers, in words."""
    through = ", through a pooler" if found.pooled else ""
    return f"PostgreSQL {found.server.version // 10_000}.{found.server.version % 10_000}{through}"


def migrate(*, dry_run: bool, yes: bool) -> None:
    """Bring the schema up to date, or make a store where there is none."""
    found = shell().about()
    if found.schema == VERSION:
        say(f"{found.shown} has the newest schema, {VERSION}; nothing to do")
        return
    if found.schema is not None and found.schema > VERSION:
        raise Failure(
            f"{found.shown} was written by a newer agentguard (schema {found.schema}, this one knows"
            f" {VERSION}): upgrade agentguard"
        )
    what = (
        f"make a store in {found.shown}" if found.schema is None
        else f"bring {found.shown} from schema {found.schema} to {VERSION}"
    )  # fmt: skip
    if confirmed(what, dry_run=dry_run, yes=yes):
        with busy("migrating"):
            open_store(shell().url, migrate=True).close()
        say(f"{found.shown} has schema {VERSION} now")


def looks() -> Iterator[Look]:
    """Look at server, connection, rights and clocks."""
    found = shell().about()
    refusal = found.server.refusal()
    said = f"{name_of(found)} at {found.shown}"
    yield "server", "failed" if refusal else "ok", f"{said} {refusal}" if refusal else said
    if found.server.is_standby:
        yield "primary", "failed", "this is a standby, which only reads: name the primary"
    for warning in found.server.warnings():
        yield "durability", "note", warning
    if found.schema is None:
        yield (
            "store",
            "failed" if shell().named else "note",
            "there is none yet; the first run makes it",
        )
    yield from _rights(found)
    yield from _clock(found)
    yield _locks()


def _locks() -> Look:
    folder = runtime_folder()
    if folder is not None:
        return "locks", "ok", f"proofs of life lie in {folder}"
    return "locks", "note", (
        "no private local folder for lock files: set AGENTGUARD_RUNTIME_DIR; until then processes of"
        " this host are known by their leases alone"
    )  # fmt: skip


def _rights(found: About) -> Iterator[Look]:
    secure = "encrypted" if found.encrypted else "not encrypted"
    yield "connection", "ok", f"as {found.user}, {secure}"
    if found.is_superuser:
        yield "rights", "note", (
            f"{found.user} is a superuser and may rewrite the record: give workers the role of"
            " `agentguard store roles`"
        )  # fmt: skip


def _clock(found: About) -> Iterator[Look]:
    off = abs(found.behind_s)
    said = (
        f"this machine and the database differ by {span(off)}" if off >= 1 else "as the database's"
    )
    yield "clock", "note" if off >= _SLACK_S else "ok", said
