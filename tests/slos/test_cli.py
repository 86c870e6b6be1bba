"""`agentguard slo export` and `import`: files for other tools, and from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agentguard.cli import main
from agentguard.config import loads

FILE = """\
agent_run:
  slos:
    refunds: {workflow: support, target: 0.95, window: 28d}
    recent: {tool: refund, target: 0.9, last: 50}
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


def slo(*words: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["slo", *words])


@pytest.mark.parametrize(
    ("to", "begins"),
    [
        ("openslo", "apiVersion: openslo/v1"),
        ("prometheus", "# Rules for Prometheus"),
        ("grafana", "{"),
        ("sloth", "# For sloth"),
    ],
)
def test_every_format_goes_to_stdout_and_what_is_left_out_to_stderr(to: str, begins: str) -> None:
    """The file can be redirected; a service level that it lacks has its sentence beside it."""
    Path("agent_run.yaml").write_text(FILE)
    told = slo("export", "--format", to)
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith(begins)
    assert told.stdout.endswith("\n")
    assert ("'recent'" in told.stderr) == (to != "openslo")


def test_the_configuration_can_be_named() -> None:
    """Another file than agent_run.yaml is named with --config."""
    Path("other.yaml").write_text(FILE)
    told = slo("export", "--format", "grafana", "--config", "other.yaml")
    assert json.loads(told.stdout)["title"] == "agentguard: service levels"


def test_what_is_exported_can_be_imported() -> None:
    """The import prints a configuration with the same service levels."""
    Path("agent_run.yaml").write_text(FILE)
    Path("openslo.yaml").write_text(slo("export", "--format", "openslo").stdout)
    told = slo("import", "openslo.yaml")
    assert told.exit_code == 0, told.output
    assert loads(told.stdout).slos == loads(FILE).slos
    assert told.stderr == ""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("export", "--format", "sloth"), "there is no agent_run.yaml here; name the configuration"),
        (("export", "--format", "sloth", "--config", "none.yaml"), "cannot be read"),
        (("export", "--format", "sloth", "--config", "empty.yaml"), "empty.yaml has no service levels"),
        (("import", "none.yaml"), "none.yaml: cannot be read"),
        (("import", "empty.yaml"), "empty.yaml:1: document 1 has no apiVersion"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    """Missing files and files without service levels are told on stderr, with a code."""
    Path("empty.yaml").write_text("agent_run: {}\n")
    told = slo(*words)
    assert told.exit_code != 0
    assert sentence in told.stderr
    assert told.stdout == ""


def test_an_unknown_format_is_refused_with_those_that_are_known() -> None:
    """The command names the formats."""
    told = slo("export", "--format", "nobl9")
    assert told.exit_code == 2
    assert "'openslo', 'prometheus', 'grafana', 'sloth'" in told.stderr
