"""`agentguard policy`: check a configuration before anybody runs with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .. import config
from ..errors import ConfigurationError
from ..guard import Guard
from ..model import dollars
from .output import Line, dumped, show_one
from .shell import CODES, Exit, Group, say
from .text import count, escaped, money
from .tools import NAMED, tools_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..autonomy import Autonomy
    from ..config import Settings


@click.group("policy", cls=Group)
def policy() -> None:
    """Configuration files: check one, print their schema."""


@policy.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    click.echo(dumped(config.json_schema(), 2))


@policy.command("check", epilog=f"JSON keys: file, ok, version, tools, problems. {CODES}")
@click.argument("file", type=click.Path())
@click.option("--tools", multiple=True, metavar=NAMED,
              help="A tool, a list of tools, or a module of them, to check with it.")  # fmt: skip
def check(file: str, tools: tuple[str, ...]) -> int:
    """Check FILE, and the tools that will run under it. Exit 5 if something is wrong."""
    named = tools_named(tools)
    try:
        settings = config.load(file)
    except ConfigurationError as error:
        return _report(file, None, named, error.message.split("\n") if "\n\n" not in error.message
                       else [error.message])  # fmt: skip
    problems = _problems(settings, named) if tools else []
    if settings.thresholds and not tools:
        say(f"thresholds were not compared with tools: name those with --tools {NAMED}")
    return _report(file, settings, named, problems)


def _problems(settings: Settings, tools: Sequence[Any]) -> list[str]:
    guard = Guard("memory://", config=settings)
    try:
        return guard.check(tools)
    finally:
        guard.close()


def _report(file: str, settings: Settings | None, tools: Sequence[Any], problems: list[str]) -> int:
    data = {
        "file": file, "ok": not problems, "version": settings.version if settings else None,
        "tools": [str(getattr(tool, "__name__", tool)) for tool in tools], "problems": problems,
    }  # fmt: skip
    show_one(data, lambda: _lines(file, settings, tools, problems))
    if problems:
        say(f"{file}: {count(len(problems), 'problem')}")
    return Exit.CHECK_FAILED if problems else Exit.DONE


def _lines(
    file: str, settings: Settings | None, tools: Sequence[Any], problems: Sequence[str]
) -> Iterator[Line]:
    for problem in problems:
        for line in problem.split("\n"):
            yield Line("problem" if line == problem.split("\n")[0] else "", escaped(line), "failed")
    if settings is None or problems:
        return
    yield Line("ok", escaped(file), "ok")
    yield Line("version", settings.version)
    yield Line("workflow", escaped(settings.workflow or "-"))
    limits = {n: v for n, v in _limits(settings).items() if v is not None}
    yield Line("limits", ", ".join(f"{name} {limit}" for name, limit in limits.items()) or "none")
    over = ", ".join(f"{escaped(fact)} over {limit}" for fact, limit in settings.thresholds.items())
    yield Line("a person decides", over or "where tools say so")
    if settings.autonomy is not None:
        yield Line("autonomy", _autonomy(settings.autonomy))
    if settings.slos:
        yield Line("service levels", escaped(", ".join(slo.name for slo in settings.slos)))
    if tools:
        yield Line("tools", f"{count(len(tools), 'tool')} can be used")


def _autonomy(said: Autonomy) -> str:
    """Return the stages that a file says, and how tools move."""
    stages = {
        "": said.default,
        **said.tools,
        **{f"every {kind}": s for kind, s in said.classes.items()},
    }
    parts = [f"{escaped(name)} {stage}".strip() for name, stage in stages.items() if stage]
    up = said.promote
    parts += [f"up to {up.to} after {up.after} outcomes, {up.confidence} sure"] if up else []
    return ", ".join(parts + ([f"down to {said.floor}"] if said.floor else []))


def _limits(settings: Settings) -> dict[str, Any]:
    limits = settings.limits
    spend = limits.max_spend
    return {
        "max_steps": limits.max_steps, "max_model_calls": limits.max_model_calls,
        "max_tool_calls": limits.max_tool_calls,
        "max_spend_usd": None if spend is None else money(dollars(spend)),
        "max_seconds": limits.max_seconds, "max_repeats": limits.max_repeats,
    }  # fmt: skip
