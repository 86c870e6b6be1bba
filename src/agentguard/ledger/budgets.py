"""Budgets and rates: reserved before a call is dispatched, in the transaction that starts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import BudgetExceeded, RateLimited
from ..model import dollars
from ..protocols import Asked
from .runs import exceeded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..protocols import Tx
    from .values import Rate, Reservation


def asked(tenant: str, tool: str, wanted: Iterable[Reservation], rate: Rate | None) -> list[Asked]:
    """Return the questions of `over` and `take_turn`."""
    budgets = [Asked("lock", _BUDGET, (tenant, item.name, item.span)) for item in wanted]
    return budgets if rate is None else [*budgets, Asked("lock", _RATE, (tenant, tool))]


def over(tx: Tx, tenant: str, wanted: Iterable[Reservation], run_id: str) -> BudgetExceeded | None:
    """Return the refusal, if one of the budgets has no room for this call."""
    for item in wanted:
        calls, spent, held = _row(tx, tenant, item.name, item.span)
        if item.max_calls is not None and calls + 1 > item.max_calls:
            return exceeded(f"max_calls of {item.label}", item.max_calls, calls, run_id)
        if item.max_spend is not None and spent + held + item.amount > item.max_spend:
            limit, used = dollars(item.max_spend), dollars(spent + held)
            return exceeded(f"max_spend_usd of {item.label}", limit, used, run_id)
    return None


_BUDGET = "SELECT calls, spent, held FROM budgets WHERE tenant = ? AND name = ? AND span = ?"
_RATE = "SELECT next_at FROM rates WHERE tenant = ? AND tool = ?"


def _row(tx: Tx, tenant: str, name: str, span: str) -> Any:
    place = (tenant, name, span)
    found = tx.lock(_BUDGET, place)
    if found is None:  # a row that is not there cannot be locked
        tx.run(
            "INSERT INTO budgets (tenant, name, span, calls, spent, held) VALUES (?,?,?,0,0,0)"
            " ON CONFLICT DO NOTHING",
            place,
        )
        found = tx.lock(_BUDGET, place)
    return found or (0, 0, 0)


def hold(tx: Tx, tenant: str, wanted: Iterable[Reservation]) -> None:
    """Reserve one call and its cost in every budget; `over` was asked in this transaction."""
    for item in wanted:
        tx.run(
            "UPDATE budgets SET calls = calls + 1, held = held + ?"
            " WHERE tenant = ? AND name = ? AND span = ?",
            (item.amount, tenant, item.name, item.span),
        )


def settle(tx: Tx, tenant: str, reserved: Sequence[Sequence[Any]], *, happened: bool) -> None:
    """Turn what was held into what is spent, or give it back when nothing happened."""
    for name, span, amount in reserved:
        tx.run(
            "UPDATE budgets SET held = held - ?, spent = spent + ?, calls = calls - ?"
            " WHERE tenant = ? AND name = ? AND span = ?",
            (amount, amount if happened else 0, 0 if happened else 1, tenant, name, span),
        )


def take_turn(tx: Tx, tenant: str, tool: str, rate: Rate) -> RateLimited | None:
    """Take one place under the rate limit, or return the refusal with the time to wait.

    The generic cell rate algorithm (ITU-T I.371): one number a tool, no window to straddle.
    """
    found = tx.lock(_RATE, (tenant, tool))
    if found is None:
        tx.run(
            "INSERT INTO rates (tenant, tool, next_at) VALUES (?,?,0) ON CONFLICT DO NOTHING",
            (tenant, tool),
        )
        found = tx.lock(_RATE, (tenant, tool))
    due = max(tx.now, found[0] if found else 0)
    early = due - tx.now - rate.interval_us * (rate.burst - 1)
    if early > 0:
        wait = early / 1_000_000
        return RateLimited(
            f"{tool} may be called {rate.text}; try again in {wait:.3f} s", retry_after=wait
        )
    tx.run(
        "UPDATE rates SET next_at = ? WHERE tenant = ? AND tool = ?",
        (due + rate.interval_us, tenant, tool),
    )
    return None
