"""`demo --slo` as its watcher sees it: autonomy is taken away and comes back, or the demo fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentguard.cli import main


@pytest.mark.slow
def test_autonomy_is_taken_away_and_comes_back_live(tmp_path: Path) -> None:
    """Payments goes down, the workflow is demoted, a write waits, people approve, it comes back."""
    words = [sys.executable, "-m", "agentguard"]
    env = {**os.environ, "PWD": str(tmp_path)}
    done = subprocess.run(
        [*words, "demo", "--slo"], cwd=tmp_path, env=env, check=False, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout
    marks = [
        "autonomy is gone",
        "approvals list",
        "pending",
        "writes approved by dana",
        "is back by rule",
    ]
    assert all(mark in told for mark in marks)
    assert told.count("$ agentguard slo status") == 3
    store = f"sqlite:///{tmp_path}/.agentguard-demo/agentguard.db"
    status = [*words, "--store", store, "--json", "slo", "status", "--config",
              f"{tmp_path}/.agentguard-demo/agent_run.yaml"]  # fmt: skip
    shown = subprocess.run(status, check=True, capture_output=True, text=True)
    [found] = json.loads(shown.stdout)
    assert (found["stage"], found["good"], found["bad"]) == ("auto", 14, 2)
    last = "\n".join(told.splitlines()[-2:])  # what the watcher is told to type next
    typed = subprocess.run(
        ["/bin/sh", "-c", last], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (typed.returncode, typed.stderr) == (0, "")
    assert "refunds_done over workflow:refund_and_close_ticket" in typed.stdout


def test_the_help_of_the_demo_names_its_stories() -> None:
    """Who asks for help learns of the other story, of going on, and of where it is kept."""
    told = CliRunner().invoke(main, ["demo", "--help"]).stdout
    assert all(option in told for option in ("--slo", "--resume", "--dir DIRECTORY"))
