"""The conformance suite can fail: without agentguard nearly all of it does."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

from agentguard.testing.conformance import AdapterContract, Outcome, PlainPython, Scene
from tests.support import ROOT

LOOP_ALONE = {
    "test_a_write_that_says_nothing_happened_may_be_called_again",
    "test_every_model_call_is_in_the_record_with_its_tokens",
    "test_killed_before_the_effect_it_happens_once",
    "test_no_model_call_is_made_once_the_runs_money_is_spent",
    "test_no_more_model_calls_than_the_run_has",
    "test_no_more_seconds_than_the_run_has",
    "test_the_model_is_shown_a_guarded_tool_as_it_would_be_shown_the_bare_one",
    "test_what_a_failed_write_says_never_reaches_the_model",
}
"""What bare tools pass: the loop around them reports its model calls and tells no error's text."""


def bare(scene: Scene) -> Scene:
    """Take our decorators off the scene's tools."""
    guarded: dict[str, Any] = dict(scene.tools)
    unwrapped = {name: tool.__wrapped__ for name, tool in guarded.items()}
    return replace(scene, tools=unwrapped)


class Unguarded(PlainPython):
    """Plain Python with the functions themselves."""

    def play(self, scene: Scene) -> Outcome:
        """Play with bare tools."""
        return super().play(bare(scene))

    async def aplay(self, scene: Scene) -> Outcome:
        """Play with bare tools."""
        return await super().aplay(bare(scene))


class Suite(AdapterContract):
    """Collected by its name only: `pytest test_kit.py -o python_classes=Suite`."""

    runtime = Unguarded


def test_the_suite_catches_a_runtime_without_agentguard() -> None:
    """With bare tools only those behaviours pass that the loop around them has by itself."""
    words = [sys.executable, "-m", "pytest", f"{__file__}::Suite", "-o", "python_classes=Suite",
             "-q", "-rpf", "-p", "no:cacheprovider"]  # fmt: skip
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    passed = set(re.findall(r"^PASSED \S+::(test_\w+)\[", ran.stdout, re.MULTILINE))
    failed = set(re.findall(r"^FAILED \S+::(test_\w+)\[", ran.stdout, re.MULTILINE))
    assert passed - failed == LOOP_ALONE, ran.stdout[-2000:]
    assert len(failed) > 40
