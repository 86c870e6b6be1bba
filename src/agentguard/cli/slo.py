"""`agentguard slo`: service levels, in this tool's words and in those of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import config
from ..slo_formats import FORMATS, export
from ..slo_formats.block import block
from ..slo_formats.openslo import read
from .shell import Failure, Group, PlainCommand, say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..slos import Slo

DEFAULT_FILE = "agent_run.yaml"


@click.group("slo", cls=Group)
def slo() -> None:
    """Service levels: how much must be good, how it stands, what other tools need."""


def with_config(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command the option --config; None stands for `agent_run.yaml`."""
    return click.option(
        "--config", "file", type=click.Path(), metavar="FILE",
        help=f"The configuration that has slos:; {DEFAULT_FILE} where it exists.",
    )(command)  # fmt: skip


def slos_of(file: str | None) -> tuple[Slo, ...]:
    """Return the service levels of *file*, or of `agent_run.yaml`.

    Raises:
        Failure: there is no such file, or no service level in it.
    """
    if file is None and not Path(DEFAULT_FILE).exists():
        raise Failure(f"there is no {DEFAULT_FILE} here; name the configuration with --config FILE")
    found = config.load(file or DEFAULT_FILE).slos
    if not found:
        raise Failure(f"{file or DEFAULT_FILE} has no service levels; write slos: under agent_run:")
    return found


@slo.command("export", cls=PlainCommand)
@click.option("--format", "to", type=click.Choice(FORMATS), required=True,
              help="For whom: OpenSLO, Prometheus, Grafana or sloth.")  # fmt: skip
@with_config
def export_slos(to: str, file: str | None) -> None:
    """Print the service levels of a configuration for another tool.

    What the format cannot carry is left out, with a sentence on stderr.
    """
    exported = export(slos_of(file), to)
    _tell(exported.left_out)
    click.echo(exported.text, nl=False)


@slo.command("import", cls=PlainCommand)
@click.argument("file", type=click.Path())
def import_slos(file: str) -> None:
    """Print the OpenSLO documents of FILE as the slos: of a configuration.

    What cannot be carried over is refused, with line, document and field.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise Failure(f"{file}: cannot be read ({error}); check the path") from error
    imported = read(text, file)
    _tell(imported.passed_over)
    click.echo(block(imported.slos), nl=False)


def _tell(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        say(sentence)
