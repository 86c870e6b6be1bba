"""SIGKILL at every place of a draft, of its execution, and of outcomes that move a tool's stage."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.forms import is_long, places
from tests.faults.processes import ask
from tests.faults.test_kills import Variant, rows

LONG = is_long()

SHORT = [Variant("drafted"), Variant("drafted", is_async=True, hook=True), Variant("earned")]
EVERY = [
    Variant(story, is_async, hook, fresh=fresh)
    for story, is_async, hook, fresh in itertools.product(
        ("drafted", "earned"), (False, True), (False, True), (False, True)
    )
]


@pytest.mark.parametrize("variant", EVERY if LONG else SHORT, ids=str)
def test_a_draft_killed_anywhere_is_executed_at_most_once(variant: Variant, folder: Path) -> None:
    """Killed at any place, a draft happens once or its doubt is listed; what nobody approved never.

    What is counted for a tool is what its verifiers have said, no more and no less.
    """
    tried = places(variant)
    plan = json.dumps({**dataclasses.asdict(variant), "folder": str(folder), **tried})
    cases: list[dict[str, Any]] = ask("zygote", plan)
    print("\n".join(rows(variant, cases)))  # noqa: T201 - the table, with pytest -s
    assert [f"{case['point']}: {case['problems']}" for case in cases if case["problems"]] == []
    assert [case for case in cases if not is_as_promised(variant, case)] == []
    assert len(cases) >= 30 // tried["step"], "too few places to die at"


def is_as_promised(variant: Variant, case: dict[str, Any]) -> bool:
    """Tell whether the workers after the killed one may end so."""
    if case["state"].startswith("executing") and not variant.hook:
        return bool(case["end"] == "effect_in_doubt" and case["effects"] <= 1)
    return bool(case["end"] == "success" and case["effects"] == 1)
