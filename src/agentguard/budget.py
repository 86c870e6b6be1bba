"""The budget room: what a tool may cost and how often it may be called.

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
from .model import moment, nanos
from .tool import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

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
) -> Callable[[F], F]:
    """Limit a tool; the room is reserved before the call is dispatched and never overshot.

    Args:
        max_calls: how many calls may have an effect in the period.
        max_spend_usd: US dollars that the calls may cost or move in the period.
        cost: what one call costs: the name of an argument, an amount, or a callable over the
            arguments.
        per: the period: one run, or an hour, day, week or month by the store's clock (UTC).

    Raises:
        ConfigurationError: nothing is limited, or an amount cannot be read.
    """
    policy = Budget(max_calls, None if max_spend_usd is None else nanos(max_spend_usd), cost, per)
    policy.check()
    return lambda function: declare(function, policy)


@dataclass(frozen=True)
class Budget:
    """What `budget` declares; *max_spend* is in nano-dollars."""

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
        if self.max_spend is not None and self.cost is None:
            raise ConfigurationError("budget: max_spend_usd needs cost=, so that it can be counted")
        if self.per not in _PERIODS:
            raise ConfigurationError(f"budget: per is one of {', '.join(_PERIODS)}")

    def bind(self, tool: Tool, _settings: Settings) -> None:
        """Write the reservation on the sheet."""
        amount = self._amount(tool)
        moved = self.max_spend is not None and not _is_fixed(self.cost)

        def reserve(call: Call) -> tuple[tuple[Reservation, ...], int]:
            cost = amount(call)
            own = Reservation(
                f"tool:{tool.name}", _span(self.per, call), f"{tool.name} per {self.per}",
                self.max_calls, self.max_spend, cost,
            )  # fmt: skip
            limited = self.max_calls is not None or self.max_spend is not None
            return ((own,) if limited else ()), (0 if moved else cost)

        tool.reserve = reserve

    def _amount(self, tool: Tool) -> Callable[[Call], int]:
        cost = self.cost
        if cost is None:
            return lambda _call: 0
        if callable(cost):
            return lambda call: _nanos(cost(**call.arguments), tool.name)
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
