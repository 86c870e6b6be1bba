"""Figures as a person reads them."""

from __future__ import annotations

from .figures import Spread
from .laps import Unit


def number_of(value: float) -> str:
    """Two or three digits that matter."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def factor(value: Spread) -> str:
    """A median and how far the rounds lay apart."""
    if value.low == value.high:
        return number_of(value.median)
    return f"{number_of(value.median)} ({number_of(value.low)}-{number_of(value.high)})"


def quantity(value: float, unit: Unit) -> str:
    """A figure in the prefix that reads best."""
    return duration(value) if unit == "seconds" else size(value)


def duration(seconds: float) -> str:
    """Seconds."""
    if seconds < 1e-3:
        return f"{number_of(seconds * 1e6)} µs"
    return f"{number_of(seconds * 1e3)} ms" if seconds < 1 else f"{seconds:.2f} s"


def size(value: float) -> str:
    """Bytes, by thousands."""
    if abs(value) < 1000:
        return f"{value:.0f} B"
    return f"{value / 1e3:.2f} KB" if abs(value) < 1e6 else f"{value / 1e6:.1f} MB"
