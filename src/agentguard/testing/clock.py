"""Time that stands still until a test moves it."""

from __future__ import annotations

import datetime as dt

_EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)


class FakeClock:
    """A clock for `Guard(clock=…)`; one clock may serve several guards, as a machine's does.

    Expiry, windows, budgets of time and the record go by it. What waits (retries, timeouts, polling)
    waits by the machine's clock all the same.

    Args:
        start: the time at first, in ISO 8601 with an offset.
    """

    def __init__(self, start: str = "2026-01-05T09:00:00+00:00") -> None:
        self._time = dt.datetime.fromisoformat(start)

    def now(self) -> int:
        """Return microseconds since the epoch, UTC."""
        return (self._time - _EPOCH) // dt.timedelta(microseconds=1)

    def advance(self, seconds: float = 0, **duration: float) -> None:
        """Let time pass: `advance(90)`, or `advance(hours=24)` as `datetime.timedelta` takes it."""
        self._time += dt.timedelta(seconds=seconds, **duration)

    def set_back(self, **duration: float) -> None:
        """Set the clock back, as people and NTP do: `set_back(minutes=5)`."""
        self._time -= dt.timedelta(**duration)
