"""The documents name what there is: every public name, option, command, key and test, no others."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import agentguard
import agentguard.hosting
import agentguard.testing
import agentguard_langchain
import agentguard_langgraph
import agentguard_llama_workflows
import agentguard_llamaindex
import agentguard_pytest
import agentguard_semantic_kernel
from agentguard import Guard, GuardError, config
from agentguard.cli import main
from agentguard.model import Limits
from agentguard.operations import Approvals, Effects, Runs
from tests.support import ROOT, committed_files

REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "how-to" / "configuration.md").read_text(encoding="utf-8")
PAGES = [path for path in committed_files() if path.suffix == ".md" and path.name != "AGENTS.md"]

DOORS = (
    agentguard,
    agentguard.hosting,
    agentguard.testing,
    agentguard_langchain,
    agentguard_langgraph,
    agentguard_llama_workflows,
    agentguard_llamaindex,
    agentguard_semantic_kernel,
)
NAMES = sorted({name for door in DOORS for name in door.__all__})
TESTING = (
    "Person",
    "assert_wrote_once",
    "assert_waiting",
    "assert_within_budget",
    "check_idempotent",
)
CALLS: dict[str, tuple[Callable[..., Any], ...]] = {
    "tool_contract": (agentguard.tool_contract,),
    "idempotent": (agentguard.idempotent,),
    "requires_approval": (agentguard.requires_approval,),
    "budget": (agentguard.budget,),
    "verified_by": (agentguard.verified_by,),
    "compensated_by": (agentguard.compensated_by,),
    "falls_back_to": (agentguard.falls_back_to,),
    "Guard": (Guard,),
    "Guard.run": (Guard.run,),
    "Guard.protect": (Guard.protect,),
    "Guard.rollback": (Guard.rollback,),
    "Guard.kill": (Guard.kill,),
    "Guard.pin": (Guard.pin, Guard.unpin, Guard.incident, Guard.standings),
    "Guard.estimate": (Guard.estimate,),
    "workflow": (agentguard.workflow,),
    "guard.approvals": (
        Approvals.list,
        Approvals.show,
        Approvals.decide,
        Approvals.proposal,
        Approvals.execute,
    ),
    "guard.effects": (Effects.list, Effects.show, Effects.resolve),
    "guard.runs": (Runs.list, Runs.events, Runs.verify, Runs.cancel, Runs.answer),
    "guard_retriever": (
        agentguard_langchain.guard_retriever,
        agentguard_llamaindex.guard_retriever,
    ),
    "guard_workflow": (agentguard_llamaindex.guard_workflow,),
    "guard_graph": (agentguard_langgraph.guard_graph,),
    "guard_kernel": (agentguard_semantic_kernel.guard_kernel,),
    **{name: (getattr(agentguard.testing, name),) for name in TESTING},
}
COMMON = {"store", "output", "json", "tenant", "by", "reason", "yes", "dry_run", "help", "version"}


def section(title: str) -> str:
    """Cut out what stands in the reference between the heading *title* and the next one."""
    found = re.search(
        rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", REFERENCE, re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/reference.md has no section {title!r}"
    return found[1]


def words(text: str) -> set[str]:
    """Collect the identifiers that stand in code quotes."""
    return {
        word
        for quoted in re.findall(r"`([^`]+)`", text.replace("```", ""))  # fences quote no word
        for word in re.findall(r"\w+", quoted)
    }


def options(call: Callable[..., Any]) -> set[str]:
    """Collect the keyword-only options that *call* names."""
    parameters = inspect.signature(call).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_explained(name: str) -> None:
    """Each name of the doors stands in the reference, in code quotes or as a heading."""
    assert name in words(REFERENCE) | set(re.findall(r"^###? (\S+)$", REFERENCE, re.MULTILINE))


@pytest.mark.parametrize("name", agentguard_pytest.__all__)
def test_every_fixture_is_explained(name: str) -> None:
    """Each fixture of the plugin stands in the reference, and in the table of its how-to."""
    table = (ROOT / "docs" / "how-to" / "testing.md").read_text(encoding="utf-8")
    assert name in words(section("agentguard.testing"))
    assert re.search(rf"^\| .*`{name}`.* \|", table, re.MULTILINE)


@pytest.mark.parametrize("title", CALLS)
def test_every_option_is_explained(title: str) -> None:
    """Each keyword option of a public call stands in the section of that call."""
    wanted = {name for call in CALLS[title] for name in options(call)}
    assert wanted <= words(section(title))


def test_every_limit_of_a_run_is_explained() -> None:
    """Each limit that a run takes stands in its section."""
    limits = {name.replace("max_spend", "max_spend_usd") for name in Limits.__dataclass_fields__}
    assert limits <= words(section("Guard.run"))


def test_errors_are_told_as_they_are() -> None:
    """The table of errors has every error, and says of each whether it may be retried and halts."""
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| (yes|no) \| (yes|no)\b.*\|$", section("Errors"), re.MULTILINE
    )
    kinds = [vars(agentguard)[name] for name in agentguard.__all__]
    errors = [e for e in kinds if inspect.isclass(e) and issubclass(e, GuardError)]
    shown = ["no", "yes"]
    assert {tuple(row) for row in rows} == {
        (error.__name__, shown[error.retryable], shown[error.halts])
        for error in errors
        if error is not GuardError
    }


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Walk the command line: what one types, and the command."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


@pytest.mark.parametrize(("typed", "command"), list(commands(main, "agentguard")), ids=str)
def test_every_command_is_explained(typed: str, command: click.Command) -> None:
    """Each command, with its own options, has a line in the reference, and no other has."""
    lines = section("Command line").splitlines()
    (line,) = [line for line in lines if line.startswith(f"| `{typed}` |")]
    flags = {
        parameter.opts[0]
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in COMMON | {"everything"}
    }
    assert {flag for flag in flags if f"`{flag}" not in line} == set()


def test_no_command_is_invented() -> None:
    """Every command that any page shows exists."""
    known = [typed.split()[1:] for typed, _ in commands(main, "agentguard")]
    shown = {
        (path.name, *match)
        for path in PAGES
        for match in re.findall(r"(?<![\w./])agentguard ([a-z]+)(?: ([a-z]+))?", code(path))
    }
    assert {
        (page, *typed) for page, *typed in shown
        if typed not in known and [typed[0]] not in known
    } == set()  # fmt: skip


def code(path: Path) -> str:
    """Join what a page shows as commands: console blocks and code quotes."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    typed = re.findall(r"^\$ (.*)$", "".join(blocks), re.MULTILINE)
    return "\n".join(typed + re.findall(r"`(agentguard [^`\n]+)`", text))


def keys(schema: Any) -> Iterator[str]:
    """Walk a JSON Schema and name every key that a file may hold."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for part in schema.values():
            yield from keys(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from keys(part)


def test_every_key_of_the_file_is_explained() -> None:
    """Each key of the configuration stands in its how-to."""
    assert set(keys(config.json_schema())) - {"agent_run"} <= words(CONFIGURATION)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """A link inside the checkout names a file that is there, and a heading of it."""
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(path: Path) -> set[str]:
    """Make the anchors of a page's headings, the way code hosts do."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_named_files_are_there() -> None:
    """Every test, source file and example that a page names in code quotes exists."""
    named = {
        (path.name, name)
        for path in PAGES
        for name in re.findall(
            r"`((?:tests|src|examples|requirements)/[\w./-]+)`", path.read_text()
        )
    }
    assert {(page, name) for page, name in named if not (ROOT / name).exists()} == set()


def test_decisions_are_listed() -> None:
    """The list of decisions has each of them, by number and title."""
    folder = ROOT / "docs" / "decisions"
    titles = {p.name: p.read_text().partition("\n")[0][2:] for p in folder.glob("0*.md")}
    listed = re.findall(
        r"^\| \[\d{4}\]\(([^)]+)\) \| (.*) \|$", (folder / "README.md").read_text(), re.MULTILINE
    )
    assert dict(listed) == titles


def test_the_table_of_guarantees_is_complete() -> None:
    """Each of the six guarantees names at least one test."""
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (G\d) \| (.*) \|$", text, re.MULTILINE))
    assert sorted(rows) == ["G1", "G2", "G3", "G4", "G5", "G6"]
    assert all("`tests/" in row for row in rows.values())


def test_the_published_schema_is_json() -> None:
    """What editors are given can be written as JSON."""
    assert json.loads(json.dumps(config.json_schema()))["$schema"]
