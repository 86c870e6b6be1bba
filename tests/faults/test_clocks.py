"""Clocks of hosts: where several hosts share a store, none of theirs measures anything."""

from __future__ import annotations

from pathlib import Path

from tests.faults.scenes import play
from tests.faults.world import World


def test_a_host_whose_clock_is_ahead_takes_nobody_for_lost(folder: Path, postgres_url: str) -> None:
    """A lease is measured by the database's clock: whoever is a day ahead waits like others."""
    World(folder, postgres_url)
    seen = play("a_day_ahead", folder)
    assert seen["exits"] == [0]
    assert seen["ends"] == ["effect_in_progress", "success"]
    assert (seen["effects"], seen["doubts"], seen["problems"]) == ({"T-1": 1}, [], [])
