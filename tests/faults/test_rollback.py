"""SIGKILL at every place of an undo and of a rollback, and what the next worker finds and does.

AGENTGUARD_LONG=1 tells every story in every variant, and tries every place.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.forms import is_long, places
from tests.faults.processes import ask
from tests.faults.test_kills import Record, Variant, rows

LONG = is_long()

SHORT = [
    Variant("refuted"),
    Variant("refuted", is_async=True, hook=True),
    Variant("kept"),
    Variant("rolled_back"),
    Variant("rolled_back", is_async=True),
]
STEPS = {"refuted": 1, "kept": 2, "rolled_back": 3}
"""Of so many places the short form tries one."""
EVERY = [
    Variant(story, is_async, hook, fresh=fresh)
    for story, is_async, hook, fresh in itertools.product(
        ("refuted", "kept", "rolled_back"), (False, True), (False, True), (False, True)
    )
]


@pytest.mark.parametrize("variant", EVERY if LONG else SHORT, ids=str)
def test_an_undo_killed_anywhere_happens_once_or_its_doubt_is_listed(
    variant: Variant, folder: Path, record_property: Record
) -> None:
    """No undo happens twice or is lost, and nothing stays half undone without being told."""
    tried = places(variant, short=STEPS[variant.story])
    plan = json.dumps({**dataclasses.asdict(variant), "folder": str(folder), **tried})
    cases: list[dict[str, Any]] = ask("zygote", plan)
    record_property("points", len(cases))
    print("\n".join(rows(variant, cases)))  # noqa: T201 - the table, with pytest -s
    assert [f"{case['point']}: {case['problems']}" for case in cases if case["problems"]] == []
    assert [case for case in cases if not is_as_promised(variant, case)] == []
    assert len(cases) >= 40 // tried["step"], "too few places to die at"


def is_as_promised(variant: Variant, case: dict[str, Any]) -> bool:
    """Tell whether the workers after the killed one may end so."""
    if variant.story == "rolled_back":  # a person has ruled on the doubts
        return bool(case["end"] == "rolled back" and case["effects"] == 1)
    over = "effect_undone" if variant.story == "refuted" else "verification_failed"
    if "executing" in case["state"] and not variant.hook:
        return bool(case["end"] == "effect_in_doubt" and case["effects"] <= 1)
    ends = {over, "verification_failed, undo in doubt"} if case["state"] == "succeeded" else {over}
    return bool(case["end"] in ends and case["effects"] == 1)
