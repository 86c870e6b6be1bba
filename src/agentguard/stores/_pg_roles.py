"""Who may do what in the database: a script that gives three roles no more than they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

APP, READER, ADMIN = "app", "reader", "admin"
_READ = (
    "meta", "owners", "runs", "events", "leaves", "effects", "approvals", "votes",
    "budgets", "rates", "switches", "autonomy", "circuits", "artifacts", "artifact_counts",
    "slos", "outcomes",
)  # fmt: skip
_APP = (
    ("INSERT, UPDATE", (
        "runs", "effects", "approvals", "budgets", "rates", "autonomy", "circuits",
        "artifact_counts", "slos",
    )),
    ("INSERT, UPDATE, DELETE", ("owners", "artifacts")),
    ("INSERT", ("events", "votes", "switches", "outcomes")),
    ("INSERT, UPDATE (position)", ("leaves",)),
    ("INSERT, UPDATE (tenant)", ("tenants",)),  # so that its row can be locked
)  # fmt: skip
_ADMIN = (
    ("UPDATE (salt, body)", ("events",)),  # to erase what was said, never what happened
    ("UPDATE (lifted_at, lifted_by)", ("switches",)),
)


def script(schema: str) -> str:
    """Return the script; it can be run again after an upgrade."""
    return "\n".join(_lines(schema)) + "\n"


def _lines(schema: str) -> Iterator[str]:
    app, reader, admin = (f"{schema}_{name}" for name in (APP, READER, ADMIN))
    yield f"-- Roles for the agentguard store in the schema {schema}. Run it as the owner of its tables."
    yield f"-- {app}: for workers. It adds events and cannot change or remove any."
    yield f"-- {reader}: for people and programs that only look."
    yield f"-- {admin}: for operators. It may also lift kill switches and erase contents."
    yield "-- Give them to your own users, for example:"
    yield f"--   CREATE ROLE worker LOGIN PASSWORD '...' IN ROLE {app};"
    yield "BEGIN;"
    for role in (app, reader, admin):
        there = f"EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{role}')"  # noqa: S608 - plain
        yield f"DO $$ BEGIN IF NOT {there} THEN CREATE ROLE {role} NOLOGIN; END IF; END $$;"
    yield f"REVOKE ALL ON SCHEMA {schema} FROM PUBLIC, {app}, {reader}, {admin};"
    yield f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC, {app}, {reader}, {admin};"
    yield f"GRANT USAGE ON SCHEMA {schema} TO {app}, {reader}, {admin};"
    yield f"GRANT SELECT ON {_names(schema, _READ)} TO {app}, {reader}, {admin};"
    yield f"GRANT SELECT ON {schema}.tenants TO {app}, {admin};"
    yield f"GRANT SELECT (tenant) ON {schema}.tenants TO {reader};"  # not the key of its hashes
    for rights, tables in _APP:
        yield f"GRANT {rights} ON {_names(schema, tables)} TO {app}, {admin};"
    for rights, tables in _ADMIN:
        yield f"GRANT {rights} ON {_names(schema, tables)} TO {admin};"
    yield "COMMIT;"


def _names(schema: str, tables: tuple[str, ...]) -> str:
    return ", ".join(f"{schema}.{table}" for table in tables)
