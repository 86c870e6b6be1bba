"""The room of costs: what a run costs besides its calls, people's time included."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from . import _metrics
from ._meter import OPEN
from ._runtime import AsyncioRuntime, InlineRuntime, run_inline
from .errors import ConfigurationError
from .ledger.costs import Cost, add_cost, minutes_text
from .model import dollars, nanos

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._meter import Meter
    from ._models import Surroundings
    from ._runtime import Runtime
    from .ledger.values import Pending, RunRef
    from .model import HumanCosts, Limits
    from .redaction import Redactor
    from .tool import Call

T = TypeVar("T")
Kind = Literal["retrieval", "tool", "human", "other"]
KINDS = ("retrieval", "tool", "human", "other")
_MOST_MINUTES = 10_000_000


class Running(Protocol):
    """What a cost needs from a run."""

    guard: Any
    id: str
    part: int
    workflow: str
    around: Surroundings
    ref: RunRef
    meter: Meter
    redactor: Redactor

    @property
    def limits(self) -> Limits:
        """The run's budget."""
        ...

    async def commit(
        self, runtime: Runtime, taken: Pending, verb: Callable[..., T], *args: Any
    ) -> T:
        """Run one verb that also writes the waiting events."""
        ...

    def executed(self) -> Call | None:
        """Return the guarded call of this run whose body is being executed, if there is one."""
        ...


class Costed:
    """What a run can do about its costs."""

    def add_cost(
        self: Running, kind: Kind, usd: Decimal | int | str, *, note: str = "", ahead: bool = False
    ) -> None:
        """Count a cost that no budget of a tool counts.

        What is spent already is recorded whatever the limits say, and closes the budget; the next
        call is refused then.

        Args:
            kind: `retrieval`, `tool`, `human` or `other`.
            usd: US dollars, from 0.
            note: what it was for; kept beside the chain.
            ahead: it is not spent yet: refuse it where the run has no room for it.

        Raises:
            BudgetExceeded: with *ahead*: it does not fit; nothing was counted.
            ConfigurationError: there is no such kind, or it is no amount.
        """
        run_inline(_add(InlineRuntime(), self, _cost(self, kind, usd, note, ahead=ahead)))

    async def aadd_cost(
        self: Running, kind: Kind, usd: Decimal | int | str, *, note: str = "", ahead: bool = False
    ) -> None:
        """Like `add_cost`, on an event loop."""
        await _add(AsyncioRuntime(), self, _cost(self, kind, usd, note, ahead=ahead))

    def add_human_minutes(
        self: Running, minutes: Decimal | float | str, *, by: str, note: str = ""
    ) -> None:
        """Count a person's time, at `costs: human_usd_per_hour` of the configuration.

        Without that the minutes stand in the record, and what the run costs is incomplete.

        Args:
            minutes: how long it took.
            by: who it was.
            note: what it was for; kept beside the chain.

        Raises:
            ConfigurationError: it is no time, or nobody's.
        """
        run_inline(_add(InlineRuntime(), self, _time(self, minutes, by, note)))

    async def aadd_human_minutes(
        self: Running, minutes: Decimal | float | str, *, by: str, note: str = ""
    ) -> None:
        """Like `add_human_minutes`, on an event loop."""
        await _add(AsyncioRuntime(), self, _time(self, minutes, by, note))


def decision_costs(costs: HumanCosts) -> dict[str, Any]:
    """Return what the record of a run says of the cost of decisions, if that is configured."""
    minutes = costs.minutes_per_decision
    if minutes is None:
        return {}
    known = {"minutes": minutes_text(minutes), "nanos": costs.nanos(minutes)}
    return {"decision_costs": known}


def amount_of(kind: str, usd: Any) -> int:
    """Return the nano-dollars of a cost.

    Raises:
        ConfigurationError: there is no such kind, or it is no amount.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"add_cost: there is no kind {kind!r}; it is {', '.join(KINDS)}")
    return nanos(usd)


def owe(run: Running, call: Call, kind: str, spent: int, note: str) -> None:
    """Count what *call* has spent elsewhere, with the run's next commit."""
    _owe(run, replace(_of(run, call, note), kind=kind, nanos=spent))


def _cost(run: Running, kind: str, usd: Any, note: str, *, ahead: bool) -> Cost:
    limits = run.limits if ahead else None
    return replace(_here(run, note), kind=kind, nanos=amount_of(kind, usd), limits=limits)


def _time(run: Running, given: Any, by: str, note: str) -> Cost:
    try:
        minutes = Decimal(str(given))
    except ArithmeticError:
        minutes = Decimal(-1)
    if isinstance(given, bool) or not minutes.is_finite() or not 0 <= minutes <= _MOST_MINUTES:
        raise ConfigurationError(f"add_human_minutes: {given!r} is not a number of minutes from 0")
    if not by.strip():
        raise ConfigurationError("add_human_minutes: whose time was it? give by=")
    costs: HumanCosts = run.guard.settings.costs
    return replace(
        _here(run, note), kind="human", nanos=costs.nanos(minutes), minutes=minutes_text(minutes),
        by=by,
    )  # fmt: skip


def _here(run: Running, note: str) -> Cost:
    """Return a cost of the call that is executed here, if there is one."""
    if run.part == 0:
        raise ConfigurationError(f"run {run.id} is not entered yet: add costs inside its block")
    return _of(run, run.executed(), note)


def _of(run: Running, call: Call | None, note: str) -> Cost:
    found = Cost("other", 0, note=run.redactor.scrub(note))
    if call is None:
        return found
    tool = call.tool.name if call.step is None else None  # a plain read's step comes with its end
    return replace(found, step=call.step, retry=call.attempt > 1, tool=tool)


def _owe(run: Running, cost: Cost) -> None:
    run.meter.note(cost.draft(), spent=cost.nanos)
    _tell(run, cost)


async def _add(runtime: Runtime, run: Running, cost: Cost) -> None:
    if OPEN.get() is not None and cost.limits is None:
        _owe(run, cost)  # it is spent, whatever becomes of the transaction that is open here
        return
    taken = run.meter.drain()
    over, usage = await run.commit(runtime, taken, add_cost, run.ref, cost, taken)
    run.meter.synced(usage, taken)
    if over is not None:
        raise over
    _tell(run, cost)


def _tell(run: Running, cost: Cost) -> None:
    if cost.nanos and run.around.traced:
        _metrics.cost(run.workflow, cost.kind, dollars(cost.nanos))
