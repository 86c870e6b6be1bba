"""Every oracle is proven by a seeded bug: with the bug in it, the test that guards against it fails."""

from __future__ import annotations

import pytest

from tests.faults.mutants import MUTANTS, is_caught, place_of, trial


@pytest.mark.parametrize("name", MUTANTS)
def test_a_seeded_bug_is_caught(name: str) -> None:
    """With this bug in the core or an adapter a test fails, and for this bug's reason."""
    ended = trial(name)
    if "1 skipped" in ended.stdout:
        pytest.skip(f"so is what catches it: {MUTANTS[name].caught_by}")
    assert is_caught(name, ended), ended.stdout + ended.stderr


@pytest.mark.parametrize("name", MUTANTS)
def test_a_seeded_bug_has_its_place(name: str) -> None:
    """Each text that a mutant changes stands once in the code as it is now."""
    assert [place_of(old) for old, _ in MUTANTS[name].edits]
