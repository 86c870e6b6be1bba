"""Deterministic simulation: no schedule of workers, faults and people breaks what is promised."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.faults.forms import is_quick
from tests.simulation.runner import KINDS, try_all
from tests.support import ROOT

LONG = bool(os.environ.get("AGENTGUARD_LONG"))
SEEN = {
    "Started", "Replay", "Busy", "Doubt", "Waiting", "Edited", "Refused",
    "dana happened Effect", "dana not_happened Effect", "dana not_happened DecisionRefused",
    "reconcile happened Effect", "reconcile not_happened Effect",
    "reconcile not_happened DecisionRefused",
}  # fmt: skip
"""What commits must have been answered, or a simulation does not go where it should."""


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_no_schedule_breaks_a_promise(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """Whatever order, death, pause, lost answer, clock, hook or ruling: all guarantees hold."""
    kind = KINDS[name]
    seeds = kind.seeds(long=LONG)
    tried = seeds[::3] if is_quick() else seeds
    total = try_all(tried, kind.delivered, jumps=kind.jumps, most=1)
    record_property("points", total.schedules)
    assert total.words == [], replay(name)
    assert set(total.seen) >= SEEN
    if kind.delivered == "verbs":
        assert total.excused["stopped for longer than the quarantine"], "no zombie ever woke up"


def replay(name: str) -> str:
    """Say how to see what went wrong."""
    kind = KINDS[name]
    words = " --calls" * (kind.delivered == "calls") + " --jumps" * kind.jumps
    return f"its story: python -m tests.simulation{words} --seed N"


@pytest.mark.parametrize("options", [[], ["--jumps"], ["--calls"]], ids=str)
def test_a_seed_tells_the_same_story_every_time(options: list[str]) -> None:
    """A schedule depends on its seed alone, not on the process that plays it."""
    stories = {story(options, hashes) for hashes in ("1", "2")}
    assert len(stories) == 1
    (told,) = stories
    assert len(told.splitlines()) > 20
    assert told.endswith("nothing is wrong\n")


def story(options: list[str], hashes: str) -> str:
    """Have a process with hashes of its own tell the story of a seed."""
    command = [sys.executable, "-m", "tests.simulation", *options, "--seed", "12"]
    environment = {**os.environ, "PYTHONHASHSEED": hashes}
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout
