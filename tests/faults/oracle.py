"""The oracle: what the record says, held against what really happened in the world."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode

from agentguard import Guard
from tests.faults.world import World
from tests.postgres.home import until

MAYBE = ("executing", "in_doubt")
Rows = list[dict[str, Any]]


def problems(guard: Guard, world: World, *, denied: Iterable[str] = ()) -> list[str]:
    """List everything that contradicts the guarantees; nothing if all of them hold."""
    with one_connection(world):
        return _problems(guard, world, denied)


def _problems(guard: Guard, world: World, denied: Iterable[str]) -> list[str]:
    listed = {effect.id for effect in guard.effects.list(state="in_doubt")}
    rows = effect_rows(world)
    return [
        *_against_the_world(world, rows, set(denied)),
        *(f"stuck: {r['name']} is executing" for r in rows if r["state"] == "executing"),
        *(
            f"not listed: {r['name']}"
            for r in rows
            if (r["state"] == "in_doubt") != (r["key"] in listed)
        ),
        *_chains(guard),
        *_money(world, rows),
        *_approvals(world),
        *_starts(world, rows),
        *_undos(rows),
        *_stages(world),
        *_levels(world),
        *_reads(world),
        *([] if guard.store.check() == "ok" else ["the file is broken"]),
    ]


def effect_rows(world: World) -> Rows:
    """Read the effects past our own code, each with the name that the world knows it by."""
    names = world.names()
    rows = read(world, "SELECT * FROM effects WHERE effect = 'write'")
    return [{**row, "name": names.get(row["key"], row["key"])} for row in rows]


def read(world: World, sql: str) -> Rows:
    """Run a query of our own over the store."""
    if world.url.startswith("postgres"):
        return _read_server(world.url, sql)
    connection = sqlite3.connect(world.store)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(sql)]
    finally:
        connection.close()


def has_store(world: World) -> bool:
    """Tell whether the store's tables are there."""
    if not world.url.startswith("postgres"):
        return world.store.exists() and bool(read(world, "SELECT * FROM sqlite_master"))
    return bool(read(world, "SELECT 1 FROM pg_tables WHERE schemaname = current_schema()"))


def wait_for_silence(world: World) -> None:
    """Wait until a server has ended what clients began that are dead now."""
    if world.url.startswith("postgres"):
        until(lambda: not read(world, _AT_WORK), "the server to end what a dead client began")


def wipe(world: World, *, tables: bool) -> None:
    """Take everything out of a store on a server, with *tables* those, too."""
    if not world.url.startswith("postgres"):
        return
    if tables:
        read(world, "DROP SCHEMA IF EXISTS ours CASCADE".replace("ours", _schema(world.url)[1]))
        return
    found = read(world, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
    names = {row["tablename"] for row in found} - {"meta"}
    read(world, "; ".join(f"DELETE FROM {name}" for name in sorted(names)))


_AT_WORK = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name = current_setting('application_name') AND pid <> pg_backend_pid()
"""


def _read_server(url: str, sql: str) -> Rows:
    try:
        return _asked(url, sql)
    except Exception as error:  # a fault may still be cutting connections off: once more
        if url in _connections or type(error).__module__ != "psycopg.errors":
            raise
        return _asked(url, sql)


def _asked(url: str, sql: str) -> Rows:
    with contextlib.ExitStack() as stack:
        connection = _connections.get(url) or stack.enter_context(_connected(url))
        found = connection.execute(sql.encode())
        return found.fetchall() if found.description else []


_connections: dict[str, Any] = {}


@contextlib.contextmanager
def one_connection(world: World) -> Iterator[None]:
    """Read a store on a server over one connection for a while; others are made for each look."""
    if not world.url.startswith("postgres"):
        yield
        return
    with _connected(world.url) as connection:
        _connections[world.url] = connection
        try:
            yield
        finally:
            del _connections[world.url]


def _connected(url: str) -> Any:
    import psycopg
    from psycopg.rows import dict_row

    where, schema = _schema(url)
    connection = psycopg.connect(where, row_factory=dict_row, autocommit=True)
    connection.execute(f"SET search_path = {schema}".encode())
    return connection


def _schema(url: str) -> tuple[str, str]:
    """Return what libpq understands of *url*, and the schema that it names."""
    place, _, query = url.partition("?")
    said = dict(parse_qsl(query))
    schema = said.pop("schema", "agentguard")
    theirs = {name: said[name] for name in said if name not in ("lease", "prepare")}
    return f"{place}?{urlencode(theirs)}", schema


def _against_the_world(world: World, rows: Rows, denied: set[str]) -> Iterator[str]:
    happened, told = world.effects(), world.told()
    states = {row["name"]: row["state"] for row in rows}
    for key, count in happened.items():
        if count > 1:
            yield f"duplicate: {key} happened {count} times"
        if key in denied:
            yield f"phantom: {key} was denied and happened"
        if states.get(key) not in ("succeeded", "in_doubt"):
            yield f"unreported: {key} happened and is {states.get(key)}"
    for key, results in told.items():
        if happened[key] == 0 or states.get(key) != "succeeded":
            yield f"lost: {key} was told as done; it is {states.get(key)}"
        if len(results) > 1:
            yield f"torn: {key} was told with {len(results)} results"


def _chains(guard: Guard) -> Iterator[str]:
    for run in guard.runs.list():
        broken = guard.runs.verify(run.id)
        if broken is not None:
            yield f"chain: {broken}"


def _money(world: World, rows: Rows) -> Iterator[str]:
    """Every budget is the sum of its effects: spent if it happened, held while nobody knows."""
    for run in read(world, "SELECT * FROM runs"):
        own = [row for row in rows if row["run_id"] == run["run_id"]]
        spent, held = _sum(own, ("succeeded",)), _sum(own, MAYBE)
        if (run["spent"], run["held"]) != (spent, held):
            yield f"budget of run {run['run_id']}: {run['spent']}+{run['held']}, not {spent}+{held}"
    expected = _reserved(rows)
    for row in read(world, "SELECT * FROM budgets"):
        found = (row["calls"], row["spent"], row["held"])
        if found != expected.get((row["name"], row["span"]), (0, 0, 0)):
            yield f"budget {row['name']}: {found}, not {expected}"


def _sum(rows: Rows, states: tuple[str, ...]) -> int:
    return sum(row["cost"] for row in rows if row["state"] in states)


def _reserved(rows: Rows) -> dict[tuple[str, str], tuple[int, int, int]]:
    found: dict[tuple[str, str], tuple[int, int, int]] = {}
    for row in rows:
        if row["state"] not in ("succeeded", *MAYBE):
            continue
        for name, span, amount in json.loads(row["reserved"]):
            calls, spent, held = found.get((name, span), (0, 0, 0))
            sure = row["state"] == "succeeded"
            found[name, span] = (
                calls + 1,
                spent + (amount if sure else 0),
                held + (0 if sure else amount),
            )
    return found


def _approvals(world: World) -> Iterator[str]:
    """Guarantee G5: an approval is used once, in the transaction that starts its call."""
    used = _facts(world, "approval.used")
    started = {(e["run_id"], e["step"], e["at"]) for e in _facts(world, "step.started")}
    for event in used:
        if (event["run_id"], event["step"], event["at"]) not in started:
            yield f"approval {event['approval_id']} was used and started nothing"
    times = Counter(event["approval_id"] for event in used)
    for row in read(world, "SELECT approval_id, status FROM approvals"):
        if times[row["approval_id"]] != (row["status"] == "used"):
            count = times[row["approval_id"]]
            yield f"approval {row['approval_id']} is {row['status']} and was used {count} times"


def _facts(world: World, kind: str) -> Rows:
    rows = read(world, f"SELECT * FROM events WHERE kind = '{kind}'")
    return [{**row, **json.loads(row["data"])} for row in rows]


def _starts(world: World, rows: Rows) -> Iterator[str]:
    """Guarantee G6: every start of a body is in the chain, under its fence."""
    started = Counter(event["key"] for event in _facts(world, "step.started"))
    for row in rows:
        if started[row["key"]] != row["fence"]:
            yield f"{row['name']}: {row['fence']} starts, {started[row['key']]} of them on record"


def _stages(world: World) -> Iterator[str]:
    """What was counted for a tool is what verifiers have said since its stage was changed."""
    changes = _facts(world, "autonomy.changed")
    for row in read(world, "SELECT * FROM autonomy"):
        own = [e for e in changes if "slo" not in e and e["tool"] == row["tool"]]
        counted = row["passed"] + row["failed"] + sum(e["passed"] + e["failed"] for e in own)
        said = [e for e in _facts(world, "verified") if e["actor"].startswith("agent:")]
        if counted != len(said):
            yield f"{row['tool']}: {counted} outcomes counted, {len(said)} verified"


def _levels(world: World) -> Iterator[str]:
    """What a service level counted is what the record tells, and so is what it took away."""
    told = [e for e in _facts(world, "autonomy.changed") if "slo" in e]
    ends = _facts(world, "step.finished")
    lost = [e for e in _facts(world, "effect.in_doubt") if e["reason"] == "owner_lost"]
    for row in read(world, "SELECT * FROM slos"):
        rows = read(world, "SELECT * FROM outcomes ORDER BY n")
        bad = sum(one["verdict"] == "bad" for one in rows)
        if (len(rows), bad) != (row["n"], row["bad"]) or row["n"] != row["good"] + row["bad"]:
            yield f"{row['slo']}: {row['n']} outcomes on its row, {len(rows)} of their own"
        if row["n"] != len(ends) + len(lost):
            yield f"{row['slo']}: {row['n']} outcomes counted, {len(ends)} ends and {len(lost)} lost"
        if (row["stage"] is not None, len(told)) != (bool(bad), int(bool(bad))):
            yield f"{row['slo']}: {bad} bad outcomes, stage {row['stage']}, told {len(told)} times"
    yield from _unasked(world, told)


def _unasked(world: World, told: Rows) -> Iterator[str]:
    """Name the writes that began after autonomy was gone and that nobody had approved."""
    used = {(e["run_id"], e["step"]) for e in _facts(world, "approval.used")}
    since = min((event["at"] for event in told), default=None)
    for event in _facts(world, "step.started") if since is not None else ():
        if event["at"] > since and (event["run_id"], event["step"]) not in used:
            yield f"phantom: step {event['step']} began unasked after autonomy was gone"


def _undos(rows: Rows) -> Iterator[str]:
    """An effect says that it is undone if its undo has succeeded, and no other one does."""
    undos = {r["key"].removeprefix("comp/"): r for r in rows if r["key"].startswith("comp/")}
    for row in rows:
        if row["key"].startswith("comp/"):
            if row["state"] == "succeeded" and row["name"] == row["key"]:
                yield f"lost: {row['key']} succeeded and did not happen"
            continue
        undo = undos.get(row["key"])
        undone = undo is not None and undo["state"] == "succeeded"
        if undone != (row["result_state"] == "undone"):
            yield f"unreported: {row['name']} is {row['result_state']}, its undo {undo and undo['state']}"
        if undo is not None and row["state"] != "succeeded":
            yield f"phantom: the undo of {row['name']}, which is {row['state']}"


def _reads(world: World) -> Iterator[str]:
    """No read is in the record that was not made, and none twice; a kill may take some out of it."""
    ends = [e for e in _facts(world, "step.finished") if e.get("effect") == "read"]
    recorded = [end for end in ends if end["outcome"] == "succeeded"]
    if len(recorded) > world.looks():
        yield f"{world.looks()} reads, {len(recorded)} on record"
