"""The examples of this checkout, graded: what holds, and what does not, is said as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentguard.cli import main
from agentguard.cli.shell import Shell
from tests.support import ROOT

DESK = "examples.five_hundred_tickets.checked"
DEMO = "examples.refund_and_close_ticket.tools"


def graded(
    monkeypatch: pytest.MonkeyPatch, tools: str, store: str | None = None, code: int = 5
) -> dict[str, Any]:
    """Grade an example with its own configuration, from the top of the checkout."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("AGENTGUARD_STORE", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    config = Path(*tools.split(".")[:2]) / "agent_run.yaml"
    words = ["check", "--tools", tools, "--config", str(config), "--format", "json"]
    ended = CliRunner().invoke(main, words, obj=Shell(store=store))
    assert ended.exit_code == code, ended.output
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_the_desk_meets_the_minimum_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example with everything on its tool passes, but for the models that it does not have."""
    found = graded(monkeypatch, DESK, code=0)
    assert found["met"] is True
    waived = [f["id"] for f in found["findings"] if f["level"] == "minimum" and f["waived"]]
    assert waived == ["cost.routing"]


@pytest.mark.slow
def test_a_hundred_tickets_with_mistakes_are_not_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Duplicates and doubts are explained; for outcomes that are surely good more runs are needed."""
    words = ["-m", "examples.five_hundred_tickets", "--tickets", "100", "--dir", str(tmp_path)]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True, timeout=100)
    found = graded(monkeypatch, DESK, f"sqlite:///{tmp_path}/agentguard.db", code=0)
    standing = {f["id"]: f["status"] for f in found["findings"] if f["level"] == "scale"}
    assert standing["safety.duplicates"] == standing["safety.doubts"] == "pass"
    assert standing["governance.audit"] == standing["governance.decisions"] == "pass"
    assert standing["verification.outcomes"] != "pass"


def test_the_demo_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo keeps the article's file as it stands, and each thing that this leaves open is told."""
    found = graded(monkeypatch, DEMO)
    assert found["below"] == [
        "safety.timeout", "safety.rate", "safety.undo", "verification.verifier",
        "verification.deterministic", "verification.fallback", "governance.principal",
        "governance.autonomy", "observability.slos", "cost.prices",
    ]  # fmt: skip


@pytest.mark.slow
def test_every_other_example_has_declared_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools from elsewhere are graded by the section of the file that says what they may do."""
    found = graded(monkeypatch, "examples.langgraph_tools.shop:TOOLS")
    told = {f["tool"]: f["evidence"] for f in found["findings"] if f["id"] == "safety.declared"}
    assert told == {
        "find_order": "declared as read",
        "mail_customer": "declared as write",
        "add_note": "declared as write",
        "delete_order": "declared as forbidden",
    }
