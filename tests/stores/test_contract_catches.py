"""The contract is real: stores with a bug each fail the test that is about it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.stores.broken import BROKEN
from tests.support import ROOT

FILE = Path("tests/stores/broken.py")


def outcomes(*names: str) -> dict[str, set[str]]:
    """Run tests of `broken.py` in a process of their own; return class and test, and how it ended."""
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-rA",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    told = subprocess.run(
        [*words, *names], cwd=ROOT, check=False, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
    ).stdout  # fmt: skip
    found: dict[str, set[str]] = {}
    for end, kind, test in re.findall(
        r"^(PASSED|FAILED|ERROR) \S+::(\w+)::(\w+)", told, re.MULTILINE
    ):
        found.setdefault(f"{kind}::{test}", set()).add(end)
    return found


def test_a_broken_store_is_caught() -> None:
    """Each store with a bug fails the test that names it, and a store without one passes them all."""
    broken = {f"Test{kind.__name__}::{test}" for kind, test in BROKEN.items()}
    whole = {f"TestSqliteStore::{test}" for test in BROKEN.values()}
    found = outcomes(*(f"{FILE}::{name}" for name in sorted(broken | whole)))
    assert {name for name in broken if "FAILED" not in found.get(name, set())} == set()
    assert {name for name in whole if found.get(name) != {"PASSED"}} == set()
