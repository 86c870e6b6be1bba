"""The document shows the table that the suite makes."""

from __future__ import annotations

import importlib
import re

from agentguard.testing.conformance import AdapterContract
from agentguard.testing.table import sentence
from tests.support import ROOT

DOCUMENT = (ROOT / "docs" / "conformance.md").read_text("utf-8")
MODULES = ("plain", "langgraph", "semantic_kernel", "llamaindex")


def runtimes() -> list[type[AdapterContract]]:
    """Find every adapter's tests."""
    found = [importlib.import_module(f"tests.conformance.test_{name}") for name in MODULES]
    return [
        kind
        for module in found
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, AdapterContract) and "runtime" in vars(kind)
    ]


def behaviours() -> list[str]:
    """List the behaviours as rows."""
    return [sentence(name) for name in dir(AdapterContract) if name.startswith("test_")]


def test_every_behaviour_has_its_row() -> None:
    """No behaviour is missing in the document, and none is shown that no test holds."""
    table = re.search(r"```text\n(.*?)```", DOCUMENT, re.DOTALL)
    assert table is not None
    rows = re.findall(r"^([a-z].*?)  +(?:sa|a |s |-\d)", table[1], re.MULTILINE)
    assert sorted(rows) == sorted(behaviours())


def test_every_runtime_and_every_reason_is_shown() -> None:
    """The document names each runtime, and says of each behaviour that one cannot have why."""
    for kind in runtimes():
        assert f"  {kind.runtime.name}\n" in DOCUMENT
        for name, reason in kind.runtime.cannot.items():
            assert sentence(name) in behaviours()
            assert reason in DOCUMENT
