"""The newest runs of the record, each read once: what became of it, and what stood in its way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ..errors import StoreUnavailable
from ..ledger import queries
from ..ledger.autonomy import OPERATIONS
from ..ledger.runs import SELECT_SEALED
from ..ledger.sealed import check_seal
from ..ledger.spent import SpentRun
from ..model import Event, dollars, nanos
from ..outcomes import run_outcome
from ..record.spending import run_spending
from ..slos import Fact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..model import Effect, RunInfo
    from ..protocols import Store, Tx
    from ..record.totals import RunSpending

NEWEST: Final = 500
"""So many of the newest runs are read where nobody says otherwise."""
_TOGETHER = 50
"""So many are read in one transaction."""
_DOUBTS = 1_000
_NOT_OURS = "fallback/"
"""The keys of tickets and other safe endings begin so: agentguard made those, no tool."""
_ENDED_BY_NOBODY = "pending"
_STOPPED = "aborted"


@dataclass(frozen=True, slots=True)
class Tally:
    """What happened, counted over events.

    Attributes:
        replayed: repeats that got the recorded end.
        again: starts under a key after one that had no effect.
        late: answers that came after somebody else had taken over, and said it had happened.
        doubts: effects whose end was not known, with those *by_hook* and *by_people* ruled on.
        decisions: what people said on calls, with those without a reason.
    """

    writes: int = 0
    replayed: int = 0
    again: int = 0
    late: int = 0
    doubts: int = 0
    by_hook: int = 0
    by_people: int = 0
    decisions: int = 0
    nameless: int = 0

    def __add__(self, other: Tally) -> Tally:
        names = Tally.__dataclass_fields__
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, slots=True)
class Seen:
    """One run of the sample.

    Attributes:
        outcome: one of `outcomes.RUN_OUTCOMES`.
        scopes: what the agent was allowed; None if nobody said so of one of its parts.
        verified: whether it succeeded and verifiers confirmed what stands of it; None where it
            wrote nothing and nothing was verified.
        complete: whether everything it spent is known.
        retry_usd: of what it spent, what second and later attempts cost.
        broken: one sentence on what is wrong with its hash chain or its row.
        tools: whose calls it made.
        asked: whether a call of it was put before people.
    """

    info: RunInfo
    outcome: str
    scopes: tuple[str, ...] | None
    verified: bool | None
    complete: bool
    retry_usd: Decimal
    broken: str | None
    tools: frozenset[str]
    asked: bool
    tally: Tally

    @property
    def ended(self) -> bool:
        """Whether it came out one way or the other; people have stopped others."""
        return self.outcome not in (_ENDED_BY_NOBODY, _STOPPED)

    @property
    def completed(self) -> bool:
        """Whether it did what it was for."""
        return self.outcome == "success"

    @property
    def escalated(self) -> bool:
        """Whether people were needed."""
        return self.asked or self.outcome == "escalated"

    @property
    def fact(self) -> Fact:
        """What service levels know of it."""
        usd = self.info.spent_usd if self.complete else None
        return Fact(self.outcome, usd, self.seconds, self.escalated)

    @property
    def seconds(self) -> Decimal:
        """How long it took from its start to its end, waiting included."""
        ended = self.info.finished_at or self.info.updated_at
        return Decimal(str((ended - self.info.started_at).total_seconds()))


@dataclass(frozen=True, slots=True)
class Sample:
    """The newest runs.

    Attributes:
        runs: the newest last.
        there: how many runs there are in the window.
        days: how long the window is.
        doubts: effects in doubt that nobody has ruled on, in the whole record.
    """

    runs: tuple[Seen, ...]
    there: int
    days: Decimal
    doubts: tuple[Effect, ...] = ()

    @property
    def tools(self) -> frozenset[str]:
        """The tools that the record knows, without their undos."""
        names = frozenset[str]().union(*(run.tools for run in self.runs))
        return frozenset(n for n in names if n.removesuffix(".undo") == n or n[:-5] not in names)

    @property
    def tally(self) -> Tally:
        """What happened in all of them."""
        return sum((run.tally for run in self.runs), Tally())

    @property
    def ended(self) -> list[Seen]:
        """The runs that came out one way or the other."""
        return [run for run in self.runs if run.ended]

    @property
    def completed(self) -> list[Seen]:
        """The runs that did what they were for."""
        return [run for run in self.runs if run.completed]

    def __str__(self) -> str:
        runs = f"{len(self.runs):,} run{'' if len(self.runs) == 1 else 's'}"
        some = f"the newest {runs} of {self.there:,}" if self.there > len(self.runs) else runs
        return f"{some} of the last {self.days.normalize():f} days"


def read_sample(
    store: Store, *, workflow: str | None = None, tenant: str | None = None,
    since: float = 30 * 86_400, newest: int = NEWEST,
) -> Sample:  # fmt: skip
    """Read the newest runs.

    Args:
        store: whose record it is.
        workflow: only runs of it.
        tenant: only in this tenant.
        since: seconds: no run that began earlier.
        newest: so many at the most.
    """
    begin = store.clock.now() - int(since * 1_000_000)
    names, there = store.read(_names, workflow, tenant, begin, newest)
    seen: list[Seen] = []
    for first in range(0, len(names), _TOGETHER):
        seen += store.read(_runs, names[first : first + _TOGETHER])
    doubts = store.read(_doubts, tenant, workflow)
    days = (Decimal(str(since)) / 86_400).quantize(Decimal("0.01"))
    return Sample(tuple(reversed(seen)), there, days, tuple(doubts))


def _names(
    tx: Tx, workflow: str | None, tenant: str | None, begin: int, newest: int
) -> tuple[list[tuple[str, str]], int]:
    """Return the newest runs by tenant and id, and how many there are."""
    whose = "tenant = ?" if tenant else "tenant IN (SELECT tenant FROM tenants)"
    of_it = " AND workflow = ?" if workflow else ""
    chosen = f"FROM runs WHERE {whose} AND started_at >= ? AND run_id <> ?{of_it}"
    values = [value for value in (tenant, begin, OPERATIONS, workflow) if value is not None]
    order = " ORDER BY started_at DESC, run_id DESC LIMIT ?"
    rows = tx.rows(f"SELECT tenant, run_id {chosen}{order}", (*values, newest))
    names = [(row[0], row[1]) for row in rows]
    count = tx.row(f"SELECT count(*) {chosen}", values)
    return names, count[0] if count else 0


def _runs(tx: Tx, names: list[tuple[str, str]]) -> list[Seen]:
    return [seen for tenant, run_id in names for seen in _run(tx, tenant, run_id)]


def _run(tx: Tx, tenant: str, run_id: str) -> Iterator[Seen]:
    for info in queries.run(tx, tenant, run_id):
        broken, events = queries.broken_link(tx, tenant, run_id), list[Event]()
        try:
            _check_row(tx, tenant, run_id)
            events = [] if broken else queries.events(tx, tenant, run_id)
        except StoreUnavailable as error:
            broken = error.message
        yield seen_of(info, events, broken)


def _check_row(tx: Tx, tenant: str, run_id: str) -> None:
    """Hold the run's row against its seal: what it spent stands there."""
    row = tx.row(f"{SELECT_SEALED} WHERE tenant = ? AND run_id = ?", (tenant, run_id))
    if row is not None:
        check_seal(f"run {run_id}", row[:-1], row[-1])


def _doubts(tx: Tx, tenant: str | None, workflow: str | None) -> list[Effect]:
    found = queries.effects(tx, tenant, "in_doubt", None, _DOUBTS)
    return [
        effect for effect in found
        if workflow is None
        or any(run.workflow == workflow for run in queries.run(tx, effect.tenant, effect.run_id))
    ]  # fmt: skip


def seen_of(info: RunInfo, events: list[Event], broken: str | None = None) -> Seen:
    """Return a run as the checks see it; of one whose chain is *broken* nothing else is believed."""
    scopes, outcome = _scopes(events), _outcome(info, events)
    tally, spent = _tally(events), _spending(info, events)
    said = tally.writes or any(event.kind == "verified" for event in events)
    again = sum(amount.nanos or 0 for amount in spent.amounts if amount.retry)
    return Seen(
        info=info,
        outcome=outcome,
        scopes=scopes,
        verified=spent.verified if said else None,
        complete=spent.complete,
        retry_usd=dollars(again),
        broken=broken,
        tools=frozenset(event.data["tool"] for event in events if event.data.get("tool")),
        asked=any(event.kind == "approval.requested" for event in events),
        tally=tally,
    )


def _scopes(events: list[Event]) -> tuple[str, ...] | None:
    """Return what its agent was allowed in all parts; None if nobody said so of one of them."""
    parts = [e.data.get("scopes") for e in events if e.kind in ("run.started", "run.resumed")]
    given = [part for part in parts if part is not None]
    if not parts or len(given) < len(parts):
        return None
    return tuple(sorted({scope for part in given for scope in part}))


def _outcome(info: RunInfo, events: list[Event]) -> str:
    """Return how it came out; records of earlier versions do not say it in a word."""
    last = next((e.data for e in reversed(events) if e.kind == "run.finished"), {})
    ending = None if info.ending is None else info.ending.kind
    resumed = info.status in ("running", "waiting", "cancelled")
    told = None if resumed else last.get("outcome")
    return str(told or run_outcome(info.status, None, ending))


def _spending(info: RunInfo, events: list[Event]) -> RunSpending:
    """Return what it spent and whether it is verified, as `agentguard costs` counts it."""
    began = int(info.started_at.timestamp())
    spent, held = nanos(info.spent_usd), nanos(info.held_usd)
    return run_spending(
        SpentRun(info.tenant, info.id, info.workflow, info.status, began, spent, held,
                 info.cost_complete, tuple(events))
    )  # fmt: skip


def _tally(events: Iterable[Event]) -> Tally:
    kinds, started, writes = Counter[str](), Counter[str](), set[str]()
    for event in events:
        data = event.data
        key = str(data.get("key") or "")
        if key.startswith(_NOT_OURS):
            continue
        kinds[event.kind] += 1
        kinds[f"{event.kind} {_how(event)}"] += 1
        if event.kind == "step.started":
            started[key] += 1
        if event.kind in ("step.started", "step.decided") and data.get("effect") == "write":
            writes.add(key)
    return Tally(
        writes=len(writes & started.keys()),
        replayed=kinds["effect.replayed"],
        again=sum(count - 1 for count in started.values()),
        late=kinds["effect.evidence succeeded"],
        doubts=kinds["effect.in_doubt"],
        by_hook=kinds["effect.resolved system"],
        by_people=kinds["effect.resolved person"],
        decisions=kinds["approval.decided"],
        nameless=kinds["approval.decided without reason"],
    )


def _how(event: Event) -> str:
    if event.kind == "approval.decided":
        told = event.data.get("by") and event.data.get("content")
        return "with reason" if told else "without reason"
    if event.kind == "effect.resolved":
        return event.actor.partition(":")[0]
    return str(event.data.get("outcome", ""))
