"""Time in tests."""

from __future__ import annotations

from agentguard.testing import FakeClock


def test_time_stands_still_until_it_is_told() -> None:
    """The clock counts microseconds since the epoch and moves by exactly what it is given."""
    clock = FakeClock("1970-01-01T00:00:01+00:00")
    assert (clock.now(), clock.now()) == (1_000_000, 1_000_000)
    clock.advance(0.5)
    clock.advance(minutes=1)
    assert clock.now() == 61_500_000
    clock.set_back(seconds=1)
    assert clock.now() == 60_500_000
