"""The front door: few names, each explained, and light to import."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from types import ModuleType

import pytest

import agentguard

MOST_NAMES = 40
LATE = {  # loaded by what uses them, never by `import agentguard`
    "click",
    "cryptography",
    "jsonschema_rs",
    "langchain",
    "langchain_core",
    "langgraph",
    "llama_index",
    "opentelemetry.sdk",
    "rich",
    "ruamel",
    "semantic_kernel",
    "tenacity",
    "workflows",
}
LOOK = """
import json, sys
network = []
sys.addaudithook(lambda event, _: event.startswith("socket.") and network.append(event))
import agentguard
json.dump({"modules": sorted(sys.modules), "network": network}, sys.stdout)
"""


def public(name: str) -> bool:
    """Tell whether a member of the package is meant for users."""
    member = getattr(agentguard, name)
    is_future = name == "annotations"  # what `from __future__ import annotations` leaves behind
    return not (name.startswith("_") or is_future or isinstance(member, ModuleType))


def test_the_public_names_are_sorted() -> None:
    """`__all__` stands in alphabetical order."""
    assert list(agentguard.__all__) == sorted(agentguard.__all__)


def test_every_public_member_is_announced() -> None:
    """`__all__` lists exactly what can be seen without an underscore."""
    assert set(agentguard.__all__) == {name for name in vars(agentguard) if public(name)}


def test_the_public_names_stay_few() -> None:
    """There are at most 40 names to learn."""
    assert len(agentguard.__all__) <= MOST_NAMES


@pytest.mark.parametrize("name", sorted(agentguard.__all__))
def test_every_public_name_explains_itself(name: str) -> None:
    """Each public name has a docstring of its own, not one that it inherits."""
    member = getattr(agentguard, name)
    text = vars(member).get("__doc__") if inspect.isclass(member) else member.__doc__
    assert inspect.cleandoc(text or "").rstrip()


@pytest.fixture(scope="module", name="fresh")
def fresh_import() -> dict[str, list[str]]:
    """Import agentguard in a new interpreter and look around there."""
    words = [sys.executable, "-W", "error", "-c", LOOK]
    seen = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    loaded: dict[str, list[str]] = json.loads(seen)
    return loaded


def test_importing_is_light(fresh: dict[str, list[str]]) -> None:
    """`import agentguard` loads no framework, and no library that only some calls need."""
    assert LATE.isdisjoint(fresh["modules"])


def test_importing_touches_no_network(fresh: dict[str, list[str]]) -> None:
    """`import agentguard` opens no socket and looks up no name."""
    assert fresh["network"] == []
