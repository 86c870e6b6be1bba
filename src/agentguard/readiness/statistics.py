"""Medians and quantiles of Decimals, exactly as they were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal


def quantile(values: Sequence[Decimal], percent: int) -> Decimal:
    """Return the smallest of *values* below or at which *percent* of them lie."""
    ranked = sorted(values)
    return ranked[-(-len(ranked) * percent // 100) - 1]


def median(values: Sequence[Decimal]) -> Decimal:
    """Return the value in the middle of *values*; of two, the lower one."""
    return quantile(values, 50)
