"""KeyboardInterrupt at every place of the guarded call, in a process that lives on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.forms import places
from tests.faults.processes import ask
from tests.faults.scenes import play
from tests.faults.test_kills import LONG, Cases, Record, Variant, is_as_promised

SHORT = [
    Variant("plain", interrupted=True),
    Variant("plain", is_async=True, hook=True, interrupted=True),
    Variant("retried", is_async=True, interrupted=True),
    Variant("doubted", hook=True, interrupted=True),
    Variant("approved", interrupted=True),
    Variant("approved", is_async=True, hook=True, interrupted=True),
]
EVERY = [
    Variant(story, is_async, hook, interrupted=True)
    for story in ("plain", "retried", "doubted", "approved", "ruled")
    for is_async in (False, True)
    for hook in (False, True)
]


@pytest.mark.parametrize("variant", EVERY if LONG else SHORT, ids=str)
def test_a_worker_interrupted_anywhere_leaves_nothing_twice_and_no_call_stuck(
    variant: Variant, folder: Path, record_property: Record
) -> None:
    """Interrupted at any place, a call can be made again in the same process, or is in doubt."""
    short = 3 if variant.story == "approved" else 1  # it has by far the most places
    tried = places(variant, short)
    plan = {**dataclasses.asdict(variant), "folder": str(folder), **tried}
    cases: Cases = ask("zygote", json.dumps(plan))
    record_property("points", len(cases))
    assert [f"{case['point']}: {case['problems']}" for case in cases if case["problems"]] == []
    assert [case for case in cases if not is_as_promised(variant, case)] == []
    needless = [case for case in cases if in_doubt_in_a_commit(case)]
    assert variant.story == "doubted" or needless == []
    assert len(cases) >= 18 // tried["step"], "too few places to be interrupted at"


def in_doubt_in_a_commit(case: dict[str, Any]) -> bool:
    """Tell whether a doubt was left where it is known that nothing began, or how it ended."""
    _, phase, *_ = case["point"].split()
    return phase in ("start:", "settle:") and "in_doubt" in case["state"]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_no_instruction_is_a_bad_moment_for_an_interrupt(
    folder: Path, record_property: Record, *, is_async: bool
) -> None:
    """Wherever in our code a signal handler raises, nothing is done twice, stuck, or locked."""
    step = 1 if LONG else 23
    plan = {"folder": str(folder), "story": "plain", "is_async": is_async, "step": step}
    seen = ask("instructions", json.dumps(plan))
    record_property("points", seen["cases"])
    assert seen["problems"] == []
    assert seen["cases"] > 1000 // step, "too few places to be interrupted at"


def test_a_second_interrupt_does_not_stop_what_makes_good_for_the_first(folder: Path) -> None:
    """Ctrl-C pressed again ends the waiting; what is known of the call is written all the same."""
    seen = play("interrupted_twice", folder)
    assert seen["raised"] == ["", "first"]
    assert (seen["effects"], seen["doubts"], seen["problems"]) == ({"T-1": 1}, [], [])
