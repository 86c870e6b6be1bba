"""SIGKILL at every place of a write whose outcome takes autonomy away, and of what comes after it."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.forms import is_long, places
from tests.faults.processes import ask
from tests.faults.test_kills import Variant, rows

LONG = is_long()

SHORT = [Variant("burnt"), Variant("burnt", is_async=True, hook=True)]
EVERY = [
    Variant("burnt", is_async, hook, fresh=fresh)
    for is_async, hook, fresh in itertools.product((False, True), (False, True), (False, True))
]


@pytest.mark.parametrize("variant", EVERY if LONG else SHORT, ids=str)
def test_an_outcome_and_what_it_takes_away_stand_together(
    variant: Variant, folder: Path, record_property: Callable[[str, object], None]
) -> None:
    """Killed at any place, an outcome is counted and has demoted, or neither; nothing starts unasked."""
    tried = places(variant, short=3)
    plan = json.dumps({**dataclasses.asdict(variant), "folder": str(folder), **tried})
    cases: list[dict[str, Any]] = ask("zygote", plan)
    print("\n".join(rows(variant, cases)))  # noqa: T201 - the table, with pytest -s
    assert [f"{case['point']}: {case['problems']}" for case in cases if case["problems"]] == []
    assert [case for case in cases if not is_as_promised(variant, case)] == []
    record_property("points", len(cases))
    assert len(cases) >= 90 // tried["step"], "too few places to die at"


def is_as_promised(variant: Variant, case: dict[str, Any]) -> bool:
    """Tell whether the workers after the killed one may end so."""
    if case["state"].startswith("executing") and not variant.hook:
        return bool(case["end"] == "effect_in_doubt" and case["effects"] <= 1)
    return bool(case["end"] == "success" and case["effects"] == 1)
