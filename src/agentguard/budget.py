"""The budget room: what a tool or a run may cost and how often it may be called.

An amount that is taken from the arguments, under a limit of the tool's own, is money the tool
moves (a refund): it counts against that limit alone. Every other cost is money the run costs: it
counts against the run's `max_spend_usd` as well.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from .declaration import declare
from .errors import ConfigurationError, ContractViolation
from .ledger.values import Reservation
from .model import dollars, moment, nanos
from .tool import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from .config import Settings
    from .declaration import F
    from .tool import Call, Tool

Per = Literal["run", "hour", "day", "week", "month"]
_PERIODS = ("run", "hour", "day", "week", "month")


def budget(
    *,
    max_calls: int | None = None,
    max_spend_usd: str | int | Decimal | None = None,
    cost: str | int | Decimal | Callable[..., Any] | None = None,
    per: Per = "run",
    max_steps: int | None = None,
    max_model_calls: int | None = None,
    max_tool_calls: int | None = None,
    max_seconds: float | None = None,
    max_repeats: int | None = None,
    loops: int | Literal["off"] | None = None,
) -> Callable[[F], F]:
    """Limit a tool or a workflow; the room is reserved before a call and never overshot.

    Args:
        max_calls: of a tool: how many calls may have an effect in the period.
        max_spend_usd: US dollars that a tool's calls may cost or move in the period, or that a
            workflow's run may cost.
        cost: what one call of a tool costs: the name of an argument, an amount, or a callable over
            the arguments. A callable may return None where nobody knows: the run's cost is
            incomplete then, and under *max_spend_usd* the call is refused.
        per: the period of a tool's budget: one run, or an hour, day, week or month by the store's
            clock (UTC).
        max_steps: of a workflow: steps of a run at most.
        max_model_calls: of a workflow: calls of a model at most.
        max_tool_calls: of a workflow: calls of tools at most.
        max_seconds: of a workflow: seconds inside a run.
        max_repeats: of a workflow: how often the same call may come without progress.
        loops: of a workflow: after how many rounds a loop is stopped, or `off`.

    Raises:
        ConfigurationError: nothing is limited, an amount cannot be read, or limits of a tool and
            of a workflow are mixed.
    """
    limits = _given(
        max_steps=max_steps, max_model_calls=max_model_calls, max_tool_calls=max_tool_calls,
        max_seconds=max_seconds, max_repeats=max_repeats, loops=loops,
    )  # fmt: skip
    if limits:
        _refuse_mixed(limits, max_calls, cost, per)
        whole = RunBudget({**limits, **_given(max_spend_usd=max_spend_usd)})
        whole.check()
        return lambda function: declare(function, whole)
    policy = Budget(max_calls, None if max_spend_usd is None else nanos(max_spend_usd), cost, per)
    policy.check()
    return lambda function: declare(function, policy)


def _given(**limits: Any) -> dict[str, Any]:
    return {name: value for name, value in limits.items() if value is not None}


def _refuse_mixed(limits: Mapping[str, Any], max_calls: Any, cost: Any, per: Per) -> None:
    own = _given(max_calls=max_calls, cost=cost, per=None if per == "run" else per)
    if own:
        raise ConfigurationError(
            f"budget: {', '.join(own)} is for a tool and {', '.join(limits)} for a workflow: put each"
            " on the function that it is for"
        )


@dataclass(frozen=True)
class RunBudget:
    """What `budget` declares on a workflow: the limits of each of its runs."""

    limits: Mapping[str, Any]

    @property
    def stage(self) -> Stage:
        """In the place of a tool's budget: nothing has both."""
        return Stage.BUDGET

    def check(self) -> None:
        """Refuse what is no limit.

        Raises:
            ConfigurationError: with the sentence that says what to change.
        """
        for name, value in self.limits.items():
            kinds = (int, float) if name == "max_seconds" else (int,)
            if name == "max_spend_usd":
                nanos(value)
            elif (name, value) == ("loops", "off"):
                continue
            elif isinstance(value, bool) or not isinstance(value, kinds) or value < 0:
                raise ConfigurationError(f"budget: {name}={value!r} is not a number from 0")

    def run_limits(self, _name: str) -> Mapping[str, Any]:
        """Return what `Guard.run` takes."""
        return self.limits

    def check_beside(self, name: str, others: Collection[Stage]) -> None:
        """Refuse to stand on a tool.

        Raises:
            ConfigurationError: with the sentence that says what to change.
        """
        if Stage.CONTRACT in others and Stage.WORKFLOW not in others:
            raise self._misplaced(name)

    def bind(self, tool: Tool, _settings: Settings) -> None:
        """Refuse to limit a tool."""
        raise self._misplaced(tool.name)

    def _misplaced(self, name: str) -> ConfigurationError:
        return ConfigurationError(
            f"{name} is a tool, and {', '.join(self.limits)} limits a run: give it to Guard.run or to"
            " @budget on a function with @workflow; a tool takes max_calls, max_spend_usd, cost, per"
        )


@dataclass(frozen=True)
class Budget:
    """What `budget` declares on a tool; *max_spend* is in nano-dollars."""

    max_calls: int | None
    max_spend: int | None
    cost: str | int | Decimal | Callable[..., Any] | None
    per: Per

    @property
    def stage(self) -> Stage:
        """After approval: who waits for people holds no money."""
        return Stage.BUDGET

    def check(self) -> None:
        """Refuse what limits nothing or cannot be counted.

        Raises:
            ConfigurationError: with the sentence that says what to change.
        """
        if self.max_calls is None and self.max_spend is None and self.cost is None:
            raise ConfigurationError("budget: give max_calls, max_spend_usd or cost")
        if self.max_calls is not None and (type(self.max_calls) is not int or self.max_calls < 0):
            raise ConfigurationError("budget: max_calls is a whole number from 0")
        if self.per not in _PERIODS:
            raise ConfigurationError(f"budget: per is one of {', '.join(_PERIODS)}")

    def run_limits(self, name: str) -> Mapping[str, Any]:
        """Return what `Guard.run` takes, if it can be meant for a workflow.

        Raises:
            ConfigurationError: it limits a tool.
        """
        if self.max_spend is None or (self.max_calls, self.cost, self.per) != (None, None, "run"):
            raise ConfigurationError(
                f"{name} is a workflow, and max_calls, cost and per are for tools: put those on the"
                " tools that it calls; a workflow takes max_steps, max_model_calls, max_tool_calls,"
                " max_spend_usd, max_seconds, max_repeats, loops"
            )
        return {"max_spend_usd": dollars(self.max_spend)}

    def check_beside(self, name: str, others: Collection[Stage]) -> None:
        """Refuse to stand on a workflow with what is for tools.

        Raises:
            ConfigurationError: with the sentence that says what to change.
        """
        if Stage.WORKFLOW in others:
            self.run_limits(name)

    def bind(self, tool: Tool, _settings: Settings) -> None:
        """Write the reservation on the sheet.

        Raises:
            ConfigurationError: money is limited that cannot be counted.
        """
        if self.max_spend is not None and self.cost is None:
            raise ConfigurationError(
                f"{tool.name}: max_spend_usd needs cost=, so that it can be counted"
            )
        moved = self.max_spend is not None and not _is_fixed(self.cost)
        tool.reserve = Reserve(self, tool.name, self._amount(tool), moved)

    def _amount(self, tool: Tool) -> Callable[[Call], int | None]:
        cost = self.cost
        if cost is None:
            return lambda _call: 0
        if callable(cost):
            return lambda call: self._said(cost(**call.arguments), tool.name)
        if isinstance(cost, str) and cost in tool.parameters:
            return lambda call: _nanos(call.arguments.get(cost), tool.name)
        try:
            fixed = nanos(cost)
        except ConfigurationError:
            raise ConfigurationError(
                f"{tool.name}: cost={cost!r} is neither one of its arguments"
                f" ({', '.join(tool.parameters)}) nor an amount"
            ) from None
        tool.fixed_cost = fixed
        return lambda _call: fixed

    def _said(self, amount: Any, tool: str) -> int | None:
        """Return nano-dollars; None stands for a cost that nobody knows, where nothing limits it."""
        return None if amount is None and self.max_spend is None else _nanos(amount, tool)


@dataclass(frozen=True, slots=True)
class Reserve:
    """What a call of a tool reserves: in the tool's own budget, and of what its run may cost."""

    budget: Budget
    tool: str
    amount: Callable[[Call], int | None]
    moved: bool

    def __call__(self, call: Call) -> tuple[tuple[Reservation, ...], int | None]:
        """Return the share of the tool's own budget and the cost for the run; None: nobody knows."""
        cost = self.amount(call)
        limited = self.budget.max_calls is not None or self.budget.max_spend is not None
        own = (self._own(call, cost or 0),) if limited else ()
        return own, (0 if self.moved else cost)

    def _own(self, call: Call, cost: int) -> Reservation:
        limits = self.budget
        return Reservation(
            f"tool:{self.tool}", _span(limits.per, call), f"{self.tool} per {limits.per}",
            limits.max_calls, limits.max_spend, cost,
        )  # fmt: skip

    def capped(self, call: Call) -> tuple[tuple[Reservation, ...], int | None]:
        """Return the most that a call can reserve whose cost is not known; None: nobody knows."""
        most = self.budget.max_spend
        own = (
            () if most is None and self.budget.max_calls is None else (self._own(call, most or 0),)
        )
        return own, (0 if self.moved and most is not None else most)


def _is_fixed(cost: Any) -> bool:
    if callable(cost):
        return False
    try:
        Decimal(str(cost))
    except ArithmeticError:
        return False
    return True


def _nanos(amount: Any, tool: str) -> int:
    try:
        return nanos(amount)
    except ConfigurationError:
        raise ContractViolation(f"{tool}: its cost is not an amount in US dollars from 0") from None


def _span(per: Per, call: Call) -> str:
    """Return the name of the period that *call* falls into."""
    if per == "run":
        return f"run:{call.run_id}"
    now = moment(call.at) or dt.datetime.now(dt.UTC)
    year, week, _ = now.isocalendar()
    return {
        "hour": f"{now:%Y-%m-%dT%H}",
        "day": f"{now:%Y-%m-%d}",
        "week": f"{year}-W{week:02}",
        "month": f"{now:%Y-%m}",
    }[per]
