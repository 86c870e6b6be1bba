"""SIGKILL at every place of a safe ending: one ticket, a closed run, and nothing that is not told.

AGENTGUARD_LONG=1 tells every story in every variant.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.faults.forms import is_long, places
from tests.faults.mutants import PLACES
from tests.faults.processes import ask
from tests.faults.test_kills import Record, Variant
from tests.faults.world import lines

LONG = is_long()
SHORT = [
    Variant("fallen"),
    Variant("fallen", is_async=True),
    Variant("fallen_once"),
    Variant("asked", hook=True),
]
EVERY = [
    Variant(story, is_async, hook)
    for story in ("fallen", "fallen_once", "asked")
    for is_async in (False, True)
    for hook in (False, True)
    if not hook or story == "asked"  # a hook that finds out leaves no doubt to fall back from
]


@pytest.mark.parametrize("variant", EVERY if LONG else SHORT, ids=str)
def test_an_ending_killed_anywhere_is_made_once_and_closes_its_run(
    variant: Variant, folder: Path, record_property: Record
) -> None:
    """Killed at any place, a run ends once: one ticket or none, no write after it, all of it told."""
    assert strange(variant, folder, record_property) == []


@pytest.mark.parametrize("variant", EVERY if LONG else SHORT[:2], ids=str)
def test_an_ending_interrupted_anywhere_is_made_once_and_closes_its_run(
    variant: Variant, folder: Path, record_property: Record
) -> None:
    """Interrupted at any place, a process that lives on ends its run once, as one that was killed."""
    interrupted = dataclasses.replace(variant, interrupted=True)
    assert strange(interrupted, folder, record_property) == []


def strange(variant: Variant, folder: Path, record_property: Record) -> list[tuple[Any, str]]:
    """Play a story to its death at many places; return what was not as promised."""
    tried = {"step": 1, "first": 0} if os.environ.get(PLACES) else places(variant, short=3)
    plan = json.dumps({**dataclasses.asdict(variant), "folder": str(folder), **tried})
    cases: list[dict[str, Any]] = ask("endings", plan)
    record_property("points", len(cases))
    assert [f"{case['point']}: {case['problems']}" for case in cases if case["problems"]] == []
    assert len(cases) > 30 // tried["step"] or os.environ.get(PLACES), "too few places to die at"
    return [(case, seen) for case in cases if (seen := what_is_wrong(variant, case, folder))]


def what_is_wrong(variant: Variant, case: dict[str, Any], folder: Path) -> str:
    """Hold what the workers after a killed one have left against what was promised."""
    world = folder / case["point"].split()[0]
    kind, sent = ending(world), len(lines(world / "tickets"))
    if variant.story == "asked":
        if case["end"] == "effect_in_doubt" and not variant.hook and case["effects"] <= 1:
            return "" if case["state"].startswith(("executing", "in_doubt")) else "a needless doubt"
        ended = case["end"] == "success" and case["effects"] == 1
        return "" if ended and kind == "ask" else f"{kind}, {case['effects']} effects"
    if case["end"] != "run_halted" or case["effects"] > 1:
        return f"the run went on: {case['end']}"
    if variant.story == "fallen":
        return "" if (kind, sent) == ("ticket", 1) else f"{kind}, {sent} tickets"
    return "" if kind in ("ticket", "draft") else f"{kind} is no ending"


def ending(world: Path) -> str:
    """Read past our own code how the run of a world has ended."""
    with closing(sqlite3.connect(world / "store.db")) as connection:
        (found,) = connection.execute("SELECT ending FROM runs").fetchone()
    return str(json.loads(found)["ending"]) if found else "nothing"
