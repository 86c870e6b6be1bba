"""What really happens in a schedule, and what contradicts the guarantees afterwards.

The world watches commits from outside: it knows of each one whether it was durable, also where the
process that made it was never told.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from agentguard.ledger import effects, queries, settling, switches
from agentguard.ledger.values import Started
from agentguard.model import Effect
from tests.simulation.disk import QUARANTINE, SECOND, Commit, Disk, Process, Time

TENANT = "acme"
DAY = 86_400 * SECOND
POOLED, POOL = "pooled", 1
"""The tool whose calls share a budget, and for how many calls it has room."""
WINDOW = int(0.9 * DAY)
"""So long a repeat is sent to a backend that drops repeats for a day."""
MAYBE = ("executing", "in_doubt")
ENDED = ("succeeded", "failed_final", "failed_retryable", "in_doubt", "denied", "awaiting_approval")


@dataclass(eq=False, slots=True)
class Body:
    """One run of a tool's body."""

    key: str
    fence: int
    dedupes: bool
    edits: Any = None
    excuse: str = ""


@dataclass(slots=True)
class World:
    """What happened, what callers were told, and what everybody has ruled.

    Attributes:
        acts: bodies that made an effect happen, by its key.
        first: when a backend first heard of a key, in true time.
        doubts: since when an effect is in doubt, how far the clock had been set forward by then, and
            its run.
        starts: when the start of a key's fence was committed, in true time.
        looked: starts that a hook's no would excuse, as of its last look in a process.
        begun: starts whose body has begun.
        over: approvals whose time was seen to be over, by whatever clock.
        excuses: starts of which somebody said that nothing had happened, where our own rules could not
            know better. What their bodies do from then on is no silent repeat.
    """

    disk: Disk
    time: Time
    acts: dict[str, list[Body]] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    told: dict[str, set[str]] = field(default_factory=dict)
    starts: dict[tuple[str, int], int] = field(default_factory=dict)
    begun: set[tuple[str, int]] = field(default_factory=set)
    looked: dict[tuple[str, str], dict[tuple[str, int], str]] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    excuses: dict[tuple[str, int], str] = field(default_factory=dict)
    doubts: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    thrown: set[tuple[str, str]] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    excused: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    looks: int = 0

    # What happens.

    def act(self, body: Body) -> None:
        """Make the effect happen; a backend that drops repeats may know the key already."""
        first, now = self.first.setdefault(body.key, self.time.true), self.time.true
        if body.dedupes and body.key in self.acts:
            if now < first + DAY:
                self.repeats += 1
                return
            if self.starts[body.key, body.fence] < first + WINDOW:
                body.excuse = "stopped until the backend had forgotten the key"
            elif self.time.back > DAY // 10:
                body.excuse = "the clock was set back beyond the backend's window"
        self.acts.setdefault(body.key, []).append(body)

    def happened(self, key: str) -> bool:
        """Return whether the effect has happened by now."""
        return key in self.acts

    def look(self, process: Process, key: str, fence: int) -> bool:
        """Return what an honest hook finds; after the quarantine, nobody can do any better."""
        since, forward, _ = self.doubts.get(key, (self.time.true, self.time.forward, ""))
        late = self.time.true - since >= QUARANTINE
        excuse = "stopped for longer than the quarantine" if late else ""
        if not late and self.time.forward > forward:
            excuse = "the clock was set forward"
        found = self._excused(key, fence, excuse)
        self.looked[key, process.name] = {
            start: why for start, why in found.items() if start in self.begun
        }
        return self.happened(key)

    def tell(self, key: str, result: object) -> None:
        """Tell a caller that it succeeded."""
        self.told.setdefault(key, set()).add(str(result))

    # What is committed.

    def committed(self, process: Process, commit: Commit) -> None:
        """Watch a transaction that has become durable."""
        verb, args, result, looked = commit.verb, commit.args, commit.result, commit.looked
        if verb is effects.begin:
            self.seen[type(result[0]).__name__] += 1
            if isinstance(result[0], Started):
                self._check_start(args[0], result[0])
        elif verb is settling.settle and result.written:
            self._check_end(args[0])
        elif verb is settling.resolve:
            self.seen[f"{args[3]} {args[2]} {type(result).__name__}"] += 1
            self._note_ruling(process, args, result)
        elif verb is switches.throw:
            self.thrown.add(args[:2])
        elif verb is switches.lift:
            self.thrown.discard(args[:2])
        if looked:
            self._note_late(looked)
        self._note_doubts()

    def _note_doubts(self) -> None:
        rows = self.disk.rows("SELECT key, run_id FROM effects WHERE state = 'in_doubt'")
        known, now = self.doubts, (self.time.true, self.time.forward)
        self.doubts = {key: known.get(key) or (*now, run) for key, run in rows}

    def _note_late(self, now: int) -> None:
        """A clock that is set back does not undo that an approval's time is over."""
        late = self.disk.rows(
            "SELECT approval_id FROM approvals WHERE status IN ('pending', 'approved')"
            " AND expires_at <= ?", now,
        )  # fmt: skip
        self.over.update(name for (name,) in late)

    def _check_start(self, intent: Any, started: Started) -> None:
        self.starts[intent.key, started.fence] = self.time.true
        if self.thrown & {("all", ""), ("tool", intent.tool)}:
            self.wrong.append(f"phantom: {intent.key} was started under the kill switch")
        approval = started.approval
        if approval is not None and approval.status == "approved" and approval.id in self.over:
            self.wrong.append(f"phantom: {intent.key} was started by an approval that was over")
        closed = [k for k, (*_, run) in self.doubts.items() if run == intent.run.run_id]
        if [key for key in closed if key != intent.key]:
            self.wrong.append(f"{intent.key} was started in a run that is in doubt of {closed}")

    def _check_end(self, end: Any) -> None:
        """An answer counts for the last start, never for one before it."""
        last = max(fence for key, fence in self.starts if key == end.key)
        if end.fence != last:
            self.wrong.append(f"{end.key}: an answer of start {end.fence} was taken for {last}'s")

    def _note_ruling(self, process: Process, args: tuple[Any, ...], result: Any) -> None:
        """Somebody says that nothing happened, while a body may still be at work."""
        _, key, ruling, by, *_ = args
        if ruling == "happened" or not isinstance(result, Effect):
            return
        if by == "reconcile":
            self.excuses |= self.looked.pop((key, process.name), {})
        else:
            self.excuses |= self._excused(key, result.fence, "a person said no")

    def _excused(self, key: str, fence: int, excuse: str) -> dict[tuple[str, int], str]:
        acted = {body.fence for body in self.acts.get(key, ())}
        return {(key, f): excuse for f in range(1, fence + 1) if f not in acted and excuse}

    # What is wrong.

    def problems(self) -> list[str]:
        """List everything that contradicts the guarantees."""
        rows = [dict(row) for row in self._rows("SELECT * FROM effects ORDER BY key")]
        events = [
            {**row, **json.loads(row["data"])}
            for row in self._rows("SELECT * FROM events ORDER BY run_id, seq")
        ]
        return [
            *self.wrong,
            *self._against_rows(rows),
            *self._over_budget(rows),
            *_starts(rows, events),
            *self._money(rows),
            *self._approvals(events),
            *self._reads(events),
            *self._chains(),
        ]

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        cursor = self.disk.connection.execute(sql)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def _against_rows(self, rows: list[dict[str, Any]]) -> Iterator[str]:
        states = {row["key"]: row["state"] for row in rows}
        for key, acts in self.acts.items():
            for body in acts:
                body.excuse = body.excuse or self.excuses.get((key, body.fence), "")
            counted = [body for body in acts if not body.excuse]
            self.excused.update(body.excuse for body in acts if body.excuse)
            if len(counted) > 1:
                fences = [body.fence for body in acts]
                yield f"duplicate: {key} happened {len(acts)} times, under the fences {fences}"
            if counted and states.get(key) not in ("succeeded", "in_doubt"):
                yield f"unreported: {key} happened and is {states.get(key)}"
        for key, results in self.told.items():
            if key not in self.acts or states.get(key) != "succeeded":
                yield f"lost: {key} was told as done and is {states.get(key)}"
            if len(results) > 1:
                yield f"lost: {key} was told with {len(results)} results"
        for row in rows:
            if row["state"] not in ENDED:
                yield f"stuck: {row['key']} is {row['state']}"

    def _over_budget(self, rows: list[dict[str, Any]]) -> Iterator[str]:
        happened: Counter[str] = Counter()
        for row in rows:
            if row["tool"] == POOLED and any(not b.excuse for b in self.acts.get(row["key"], ())):
                happened[str(json.loads(row["reserved"]))] += 1
        for budget, count in happened.items():
            if count > POOL:
                yield f"phantom: {count} calls happened on a budget of {POOL}: {budget}"

    def _reads(self, events: list[dict[str, Any]]) -> Iterator[str]:
        """No read is in the record that was not made, and none twice."""
        recorded = [e for e in events if e["kind"] == "step.finished" and e.get("effect") == "read"]
        if len(recorded) > self.looks:
            yield f"{self.looks} reads, {len(recorded)} on record"

    def _money(self, rows: list[dict[str, Any]]) -> Iterator[str]:
        for run in self._rows("SELECT run_id, spent, held, tool_calls FROM runs"):
            own = [row for row in rows if row["run_id"] == run["run_id"]]
            spent, held = _sum(own, ("succeeded",)), _sum(own, MAYBE)
            if (run["spent"], run["held"]) != (spent, held):
                told = f"{run['spent']}+{run['held']}, not {spent}+{held}"
                yield f"budget of run {run['run_id']}: {told}"
        expected = _reserved(rows)
        for row in self._rows("SELECT * FROM budgets"):
            found = (row["calls"], row["spent"], row["held"])
            if found != expected.get((row["name"], row["span"]), (0, 0, 0)):
                yield f"budget {row['name']}: {found}, not {expected}"

    def _approvals(self, events: list[dict[str, Any]]) -> Iterator[str]:
        kept = {row["approval_id"]: row for row in self._rows("SELECT * FROM approvals")}
        used = Counter(e["approval_id"] for e in events if e["kind"] == "approval.used")
        for name, row in kept.items():
            if used[name] != (row["status"] == "used"):
                yield f"approval of {row['key']} is {row['status']}, used {used[name]} times"
            if used[name]:
                own = [e for e in events if e.get("approval_id") == name]
                own.sort(key=lambda event: _ORDER.index(event["kind"]))  # runs have no common order
                yield from _not_approved(row, own)

    def _chains(self) -> Iterator[str]:
        reader: Any = _Reader(self.disk)
        for (run,) in self.disk.rows("SELECT run_id FROM runs ORDER BY run_id"):
            broken = queries.broken_link(reader, TENANT, run)
            if broken is not None:
                yield f"chain: {broken}"


class _Reader:
    """As much of a transaction as readers of the ledger need."""

    def __init__(self, disk: Disk) -> None:
        self.now = 0
        self._disk = disk

    def row(self, sql: str, values: Any = ()) -> Any:
        """Return the first row or None."""
        return self._disk.connection.execute(sql, values).fetchone()

    def rows(self, sql: str, values: Any = ()) -> Any:
        """Return all rows."""
        return self._disk.connection.execute(sql, values).fetchall()


def _sum(rows: list[dict[str, Any]], states: tuple[str, ...]) -> int:
    return sum(row["cost"] for row in rows if row["state"] in states)


def _reserved(rows: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[int, int, int]]:
    found: dict[tuple[str, str], tuple[int, int, int]] = {}
    for row in rows:
        if row["state"] in ("succeeded", *MAYBE):
            sure = row["state"] == "succeeded"
            for name, span, amount in json.loads(row["reserved"]):
                calls, spent, held = found.get((name, span), (0, 0, 0))
                more = (amount, 0) if sure else (0, amount)
                found[name, span] = (calls + 1, spent + more[0], held + more[1])
    return found


def _starts(rows: list[dict[str, Any]], events: list[dict[str, Any]]) -> Iterator[str]:
    """Guarantee G6: every start of a body is in the chain, under its fence."""
    started = Counter(event["key"] for event in events if event["kind"] == "step.started")
    for row in rows:
        if started[row["key"]] != row["fence"]:
            yield f"{row['key']}: {row['fence']} starts, {started[row['key']]} on record"


_ORDER = ("approval.requested", "approval.decided", "approval.expired", "approval.used")


def _not_approved(row: dict[str, Any], events: list[dict[str, Any]]) -> Iterator[str]:
    """Guarantee G5, told from the votes: enough people, none of them twice, nobody against."""
    key, generation = row["key"], 0
    people = set[str]()
    for event in events:
        if event["kind"] == "approval.requested":
            generation = event["generation"]
        if event["kind"] == "approval.expired":
            yield f"phantom: the approval of {key} had expired when it was used"
        if event["kind"] == "approval.decided":
            if event["decision"] == "edit":
                people, generation = set(), event["new_generation"]
            elif event["decision"] == "reject":
                yield f"phantom: the call {key} was rejected and started"
            else:
                people.add("".join(event["by"].casefold().split()))
        if event["kind"] == "approval.used":
            if len(people) < row["quorum"] or event["generation"] != generation:
                yield f"phantom: {key} was started, approved by {sorted(people)} alone"
            if row["used_at"] is None or row["used_at"] >= row["expires_at"]:
                yield f"phantom: {key} was started by an approval whose time was over"
