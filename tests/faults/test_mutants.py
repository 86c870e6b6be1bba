"""Every oracle is proven by a seeded bug: with the bug in it, the test that guards against it fails."""

from __future__ import annotations

import os

import pytest

from tests.faults.mutants import MUTANTS, is_caught, place_of, trial

IN_CI = (  # the twelve of the design, then some for what else is promised; at night it is all of them
    "no fence in settle", "take-over when the lease is over", "early reconcile",
    "no payload check", "commit after the body", "approval and start in two transactions",
    "synchronous=NORMAL", "a warning at COMMIT is ignored", "leases by the local clock",
    "delete on exception", "approvals counted by vote", "chain in a transaction of its own",
    "simulated: no fence", "a doubt closes nothing",
    "an undo starts though its effect is in doubt", "a demotion is seen one call late",
    "a broken verifier counts as yes", "llamaindex: calls of one id are one call",
    "the demotion of a workflow is not looked at", "failed runs cost nothing",
    "tenants share artifacts",
)  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS if os.environ.get("AGENTGUARD_LONG") else IN_CI)
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
