"""Runs of a workflow added up: what they spent, and what one that succeeded costs."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Literal

from ..model import dollars

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence

Part = Literal["work", "rework", "waiting"]
_NOT_ENDED = ("running", "waiting")
_P95 = 95


@dataclass(frozen=True, slots=True)
class Amount:
    """What one event says was spent.

    Attributes:
        kind: model, tool, retrieval, human or other.
        name: the model, or the tool; nothing for what belongs to no call.
        nanos: nano-dollars; None if nobody knows.
        retry: a second or later attempt caused it.
        tokens: of a model call: input, cached, output.
    """

    kind: str
    name: str
    nanos: int | None
    part: Part
    retry: bool = False
    tokens: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class RunSpending:
    """What one run spent.

    Attributes:
        complete: everything it spent is known; else the amounts are the least it was.
        completed: it succeeded.
        verified: it succeeded, a verifier said yes, no last word of a verifier is a no, and nothing
            is refuted and not undone, or in doubt.
        artifacts: how often a kept artifact was found, how often not.
        saved: nano-dollars that kept artifacts had cost when they were made.
    """

    tenant: str
    run_id: str
    workflow: str
    status: str
    started_at: dt.datetime
    complete: bool
    completed: bool
    verified: bool
    amounts: tuple[Amount, ...]
    artifacts: tuple[int, int] = (0, 0)
    saved: int = 0

    @property
    def nanos(self) -> int:
        """What it spent, in nano-dollars."""
        return sum(amount.nanos or 0 for amount in self.amounts)

    @property
    def usd(self) -> Decimal:
        """What it spent, in US dollars."""
        return dollars(self.nanos)

    def part(self, part: Part) -> int:
        """Return the nano-dollars of one of the three parts."""
        return sum(amount.nanos or 0 for amount in self.amounts if amount.part == part)

    @property
    def work(self) -> Decimal:
        """What stands."""
        return dollars(self.part("work"))

    @property
    def rework(self) -> Decimal:
        """What came to nothing, or was done again."""
        return dollars(self.part("rework"))

    @property
    def waiting(self) -> Decimal:
        """What people's time cost."""
        return dollars(self.part("waiting"))


@dataclass(frozen=True, slots=True)
class Spending:
    """What the runs of a workflow spent, in US dollars.

    Attributes:
        runs: how many there are, *unfinished* ones included.
        completed: how many succeeded, and *verified* how many of those were verified.
        usd: all that all of them spent; *work*, *rework* and *waiting* together are that.
        complete: all of it is known; else every amount is the least that it can be.
        unknown_runs: of how many runs something is not known.
        retry: of *rework*, what second and later attempts cost.
        per_completed: *usd* for each run that succeeded; None while none has.
        per_verified: *usd* for each verified run; None while there is none.
        median_usd: of the verified runs: half of them cost no more.
        p95_usd: of the verified runs: 95 in 100 of them cost no more.
        input_tokens: of all model calls; *cached_tokens* are those that providers had in caches.
        artifact_hits: how often a kept artifact was found, and *artifact_misses* how often not.
        saved_usd: what the found ones had cost when they were made.
    """

    tenant: str
    workflow: str
    runs: int
    unfinished: int
    completed: int
    verified: int
    usd: Decimal
    complete: bool
    unknown_runs: int
    work: Decimal
    rework: Decimal
    waiting: Decimal
    retry: Decimal
    per_completed: Decimal | None
    per_verified: Decimal | None
    median_usd: Decimal | None
    p95_usd: Decimal | None
    input_tokens: int
    cached_tokens: int
    artifact_hits: int
    artifact_misses: int
    saved_usd: Decimal

    @property
    def cached_tokens_share(self) -> Decimal | None:
        """The part of all input tokens that providers had in their caches."""
        return _share(self.cached_tokens, self.input_tokens)

    @property
    def artifact_hit_rate(self) -> Decimal | None:
        """How often a kept artifact was found when one was asked for."""
        return _share(self.artifact_hits, self.artifact_hits + self.artifact_misses)


@dataclass(frozen=True, slots=True)
class NamedSpending:
    """What went to one model or one tool, in US dollars.

    Attributes:
        name: the model or the tool; empty for what belongs to no call.
        amounts: how many events say so: of a model, its calls.
        complete: all of it is known; else every amount is the least that it can be.
    """

    tenant: str
    name: str
    amounts: int
    usd: Decimal
    complete: bool
    work: Decimal
    rework: Decimal
    waiting: Decimal
    retry: Decimal
    input_tokens: int
    cached_tokens: int
    output_tokens: int

    @property
    def cached_tokens_share(self) -> Decimal | None:
        """The part of its input tokens that the provider had in its cache."""
        return _share(self.cached_tokens, self.input_tokens)


def total(tenant: str, workflow: str, runs: Sequence[RunSpending]) -> Spending:
    """Return what *runs* spent together."""
    amounts = [amount for run in runs for amount in run.amounts]
    nanos = sum(run.nanos for run in runs)
    verified = sorted(run.nanos for run in runs if run.verified)
    completed = sum(run.completed for run in runs)
    unknown = sum(not run.complete for run in runs)
    return Spending(
        tenant, workflow, len(runs), sum(run.status in _NOT_ENDED for run in runs),
        completed, len(verified), dollars(nanos), unknown == 0, unknown,
        _of("work", amounts), _of("rework", amounts), _of("waiting", amounts), _retry(amounts),
        _each(nanos, completed), _each(nanos, len(verified)),
        _whole(Decimal(statistics.median(verified))) if verified else None,
        dollars(verified[_rank(len(verified))]) if verified else None,
        sum(amount.tokens[0] for amount in amounts), sum(amount.tokens[1] for amount in amounts),
        sum(run.artifacts[0] for run in runs), sum(run.artifacts[1] for run in runs),
        dollars(sum(run.saved for run in runs)),
    )  # fmt: skip


def named(runs: Iterable[RunSpending], by: Literal["model", "tool"]) -> list[NamedSpending]:
    """Return what went to each model, or to each tool; the dearest first, each tenant's by itself."""
    groups: dict[tuple[str, str], list[Amount]] = {}
    for run in runs:
        for amount in run.amounts:
            if (amount.kind == "model") == (by == "model"):
                groups.setdefault((run.tenant, amount.name), []).append(amount)
    found = [_named(*key, amounts) for key, amounts in groups.items()]
    return sorted(found, key=lambda one: (one.tenant, -one.usd, one.name))


def _named(tenant: str, name: str, amounts: Sequence[Amount]) -> NamedSpending:
    asked, cached, answered = (sum(amount.tokens[at] for amount in amounts) for at in range(3))
    return NamedSpending(
        tenant, name, len(amounts), dollars(sum(amount.nanos or 0 for amount in amounts)),
        all(amount.nanos is not None for amount in amounts),
        _of("work", amounts), _of("rework", amounts), _of("waiting", amounts), _retry(amounts),
        asked, cached, answered,
    )  # fmt: skip


def _of(part: str, amounts: Iterable[Amount]) -> Decimal:
    return dollars(sum(amount.nanos or 0 for amount in amounts if amount.part == part))


def _retry(amounts: Iterable[Amount]) -> Decimal:
    return dollars(sum(amount.nanos or 0 for amount in amounts if amount.retry))


def _each(nanos: int, runs: int) -> Decimal | None:
    return _whole(Decimal(nanos) / runs) if runs else None


def _whole(nanos: Decimal) -> Decimal:
    return dollars(int(nanos.to_integral_value(ROUND_HALF_EVEN)))


def _rank(runs: int) -> int:
    """Return the place of the one that 95 in 100 do not exceed (the nearest rank)."""
    return -(-runs * _P95 // 100) - 1


def _share(part: int, whole: int) -> Decimal | None:
    return (Decimal(part) / whole).quantize(Decimal("0.0001")) if whole else None
