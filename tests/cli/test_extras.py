"""`agentguard demo` and `agentguard completion`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentguard.cli import demo
from tests.cli.conftest import Call


def test_the_demo_runs_from_a_checkout(
    run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`demo` hands its arguments to the demo beside the checkout, and returns its exit code."""
    package = tmp_path / "stage" / "play"
    package.mkdir(parents=True)
    script = "def main(argv):\n    print('played', *argv)\n    return 4\n"
    (package / "demo.py").write_text(script)
    monkeypatch.setattr(demo, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(demo, "_MODULE", "stage.play.demo")
    monkeypatch.setattr(sys, "path", list(sys.path))
    ended = run("demo", "--fast", "T-1")
    assert (ended.exit_code, ended.stdout) == (4, "played --fast T-1\n")


def test_without_a_checkout_the_demo_says_so(
    run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package without examples answers in one sentence, exit 1."""
    monkeypatch.setattr(demo, "_CHECKOUT", tmp_path)
    ended = run("demo")
    assert (ended.exit_code, ended.stderr.count("\n")) == (1, 1)
    assert "python3 run.py demo" in ended.stderr


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(run: Call, name: str) -> None:
    """`completion` prints a script that asks the command itself."""
    assert "_AGENTGUARD_COMPLETE" in run("completion", name).stdout


def test_an_unknown_shell_is_a_usage_error(run: Call) -> None:
    """A shell that is not supported is exit 2."""
    assert run("completion", "tcsh").exit_code == 2


def test_the_words_are_completed() -> None:
    """Asked by a shell, the command offers its nouns."""
    environment = {
        "_AGENTGUARD_COMPLETE": "bash_complete",
        "COMP_WORDS": "agentguard ap",
        "COMP_CWORD": "1",
    }
    words = [sys.executable, "-m", "agentguard"]
    said = subprocess.run(words, check=False, capture_output=True, text=True, env=environment)
    assert said.stdout == "plain,approvals\n"
