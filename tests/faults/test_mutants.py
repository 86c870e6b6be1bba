"""Every oracle is proven by a seeded bug: with the bug in it, the test that guards against it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.faults.mutants import MUTANTS, PLACES, VARIABLE, place_of
from tests.support import ROOT

Ended = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module", name="trials")
def trials_of_all_mutants(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Ended]]]:
    """Start the trials of all mutants that are asked for, as many at a time as there are cores."""
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = [
        str(item.callspec.params["name"])
        for item in functions
        if item.function is test_a_seeded_bug_is_caught
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {name: pool.submit(trial, name) for name in asked}
        pool.shutdown(cancel_futures=True)


def trial(name: str) -> Ended:
    """Run the test that is to catch a mutant with the mutant in it."""
    module = [sys.executable, "-m", "tests.faults.mutants", "pytest"]
    return subprocess.run(
        [*module, "-x", "-vv", "-p", "no:cacheprovider", f"tests/{MUTANTS[name].caught_by}"],
        cwd=ROOT,
        env={**os.environ, VARIABLE: name, PLACES: MUTANTS[name].places},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("name", MUTANTS)
def test_a_seeded_bug_is_caught(name: str, trials: dict[str, Future[Ended]]) -> None:
    """With this bug in the core or an adapter a test fails, and for this bug's reason."""
    ended = trials[name].result()
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout + ended.stderr
    assert "1 failed" in ended.stdout
    assert MUTANTS[name].says in ended.stdout, ended.stdout


@pytest.mark.parametrize("name", MUTANTS)
def test_a_seeded_bug_has_its_place(name: str) -> None:
    """Each text that a mutant changes stands once in the code as it is now."""
    assert [place_of(old) for old, _ in MUTANTS[name].edits]
