"""SIGKILL at every place of the guarded call, and what the next worker finds and does.

`pytest -s tests/faults/test_kills.py` prints the whole table; it is also in `kills.txt` below
pytest's folder for temporary files. AGENTGUARD_LONG=1 plays every story in every variant.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.forms import is_long, places
from tests.faults.processes import ask

LONG = is_long()
Cases = list[dict[str, Any]]
Record = Callable[[str, object], None]


@dataclasses.dataclass(frozen=True)
class Variant:
    """One story, told one way."""

    story: str
    is_async: bool = False
    hook: bool = False
    first_death: str = ""
    fresh: bool = False
    interrupted: bool = False

    def __str__(self) -> str:
        colour, help_ = "async" if self.is_async else "sync", "hook" if self.hook else "no hook"
        words = [self.story, colour, help_]
        more = [f"after {self.first_death}"] if self.first_death else []
        return ", ".join([*words, *more, *(["new store"] if self.fresh else [])])


SHORT = [
    *(Variant("plain", is_async=a, hook=h) for a in (False, True) for h in (False, True)),
    *(Variant("approved", is_async=a, hook=not a) for a in (False, True)),
    Variant("retried", is_async=True, hook=True),
    Variant("doubted", is_async=False, hook=True),
    Variant("doubted", is_async=True, hook=False),
    Variant("plain", hook=True, first_death="effect done"),
    Variant("plain", is_async=True, hook=True, first_death="body entered"),
    Variant("ruled", first_death="effect done"),
    Variant("plain", fresh=True),
    Variant("verified", is_async=True),
    Variant("unconfirmed", hook=True),
    Variant("planned"),
    Variant("planned", is_async=True, hook=True),
]
EVERY = [
    Variant(story, is_async, hook, first_death, fresh)
    for story, is_async, hook, first_death, fresh in itertools.product(
        (
            "plain",
            "retried",
            "doubted",
            "approved",
            "ruled",
            "verified",
            "unconfirmed",
            "planned",
        ),
        (False, True),
        (False, True),
        ("", "body entered", "effect done"),
        (False, True),
    )
    if not (first_death and (fresh or story not in ("plain", "ruled")))
]


@pytest.fixture(scope="module", name="table")
def table_of_all_cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Collect one line for each case, and write them down at the end."""
    lines: list[str] = []
    yield lines
    target = tmp_path_factory.getbasetemp() / "kills.txt"
    target.write_text("\n".join(lines) + "\n")
    sys.stdout.write("\n" + "\n".join(lines) + f"\n{target}\n")


@pytest.mark.parametrize("variant", EVERY if LONG else SHORT, ids=str)
def test_a_worker_killed_anywhere_leaves_nothing_twice_and_nothing_lost(
    variant: Variant, folder: Path, table: list[str], record_property: Record
) -> None:
    """Killed at any place, a call is done once or its doubt is listed; a hook resolves it."""
    tried = places(variant)
    plan = json.dumps({**dataclasses.asdict(variant), "folder": str(folder), **tried})
    cases: Cases = ask("zygote", plan)
    table += rows(variant, cases)
    record_property("points", len(cases))
    assert [f"{case['point']}: {case['problems']}" for case in cases if case["problems"]] == []
    assert [case for case in cases if not is_as_promised(variant, case)] == []
    assert len(cases) >= 18 // tried["step"], "too few places to die at"


def is_as_promised(variant: Variant, case: dict[str, Any]) -> bool:
    """Tell whether the next worker may end so: with one success, or with the doubt it was left."""
    success: bool = case["end"] == "success" and case["effects"] == 1
    doubt: bool = case["end"] == "effect_in_doubt" and case["effects"] <= 1
    if variant.story == "unconfirmed":  # whoever is asked, nobody confirms
        over = case["end"] in ("verifier_unavailable", "effect_in_doubt")
        return over and case["effects"] <= 1
    if variant.hook or variant.story == "ruled":
        return success
    if variant.story == "doubted" or variant.first_death:
        return doubt
    return doubt if str(case["state"]).startswith(("executing", "in_doubt")) else success


def rows(variant: Variant, cases: Cases) -> list[str]:
    """Write the cases of one variant as lines of a table."""
    return [
        f"-- {variant}: {len(cases)} places",
        *(
            f"{case['point']:55} {case['state']:38} {case['effects']} {case['end']:16}"
            f" {'; '.join(case['problems']) or 'ok'}"
            for case in sorted(cases, key=lambda case: str(case["point"]))
        ),
    ]
