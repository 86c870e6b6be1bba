"""Across real processes: killed, saved, decided elsewhere, restored; the effect happens once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentguard import Guard
from tests.support import ROOT, World

PATHS = os.pathsep.join(
    [os.environ.get("PYTHONPATH", ""), *(str(ROOT / name) for name in ("src", "integrations", ""))]
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATHS}


def worker(folder: Path, kind: str, does: str) -> int:
    """Run the worker process; return its exit code."""
    script = str(ROOT / "tests/llamaindex/worker.py")
    words = [sys.executable, script, str(folder), kind, does]
    return subprocess.run(words, env=ENVIRONMENT, check=False).returncode


@contextmanager
def opened(folder: Path) -> Iterator[Guard]:
    """The guard of the worker, in this process."""
    guard = Guard(f"sqlite:///{folder}/agentguard.db")
    yield guard
    guard.close()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "times"), [("bare", 2), ("guarded", 1)])
def test_a_kill_after_the_effect(tmp_path: Path, kind: str, times: int) -> None:
    """The worker is killed after the effect and before any record: a new one finishes its work."""
    assert worker(tmp_path, kind, "kill") == -signal.SIGKILL
    assert worker(tmp_path, kind, "run") == 0
    assert World(tmp_path / f"{kind}.txt").effects == ["ann"] * times
    if kind == "guarded":
        with opened(tmp_path) as guard:
            assert [effect.state.value for effect in guard.effects.list()] == ["succeeded"]
            assert guard.runs.show("r-1").status == "succeeded"


@pytest.mark.slow
@pytest.mark.parametrize("does", ["ask", "die"])
def test_a_context_saved_in_one_process_goes_on_in_another(tmp_path: Path, does: str) -> None:
    """One process asks and ends, a second decides by command, a third goes on; each a real one."""
    assert worker(tmp_path, "guarded", does) == (0 if does == "ask" else -signal.SIGKILL)
    with opened(tmp_path) as guard:
        (approval,) = guard.approvals.list("pending")
        if does == "ask":
            assert guard.runs.show("r-1").status == "waiting"
    store = f"sqlite:///{tmp_path}/agentguard.db"
    words = ["approvals", "approve", approval.id, "--by", "dana", "--store", store]
    subprocess.run([sys.executable, "-m", "agentguard", *words], env=ENVIRONMENT, check=True)
    for _ in range(2):  # the second time, all is done already
        assert worker(tmp_path, "guarded", "resume") == 0
    assert World(tmp_path / "guarded.txt").effects == ["ann"]
    with opened(tmp_path) as guard:
        assert [(run.id, run.status) for run in guard.runs.list()] == [("r-1", "succeeded")]
        assert guard.runs.verify("r-1") is None
