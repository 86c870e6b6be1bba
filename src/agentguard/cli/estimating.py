"""`agentguard runs estimate`: what a plan costs at the worst, before anything starts."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import config
from ..canonical import loads
from ..errors import ConfigurationError
from ..guard import Guard
from .output import Line, show_one
from .shapes import usd
from .shell import CODES, Exit, Failure, PlainCommand
from .text import count, escaped, money
from .tools import NAMED, tools_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from decimal import Decimal

    from ..estimates import Estimate, StepEstimate

_KEYS = (
    "JSON keys: fits, tool_calls, model_calls, tool_usd, model_usd, human_minutes, human_usd,"
    " total_usd, unknown, misfits, steps."
)


@click.command("estimate", cls=PlainCommand, epilog=f"{_KEYS} {CODES}")
@click.option("--plan", type=click.Path(), metavar="FILE",
              help="A JSON file with the steps: tool, arguments, repeat.")  # fmt: skip
@click.option("--template", metavar="NAME", help="A template of the configuration instead.")
@click.option("--parameter", "given", multiple=True, metavar="NAME=VALUE",
              help="A parameter of the template; without any, its arguments count as free.")  # fmt: skip
@click.option("--config", "file", type=click.Path(), metavar="FILE",
              help="The configuration with the limits and templates.")  # fmt: skip
@click.option("--tools", multiple=True, metavar=NAMED,
              help="The tools that the plan names; the module is imported.")  # fmt: skip
@click.option("--model-usd", metavar="USD", help="What one call of a model costs at the most.")
def estimate(
    plan: str | None, template: str | None, given: Sequence[str], file: str | None,
    tools: tuple[str, ...], model_usd: str | None,
) -> int:  # fmt: skip
    """Tell what a plan or a template costs at the worst, and whether the limits have room for it.

    Nothing is started. Exit 5 if the worst case does not fit; what is not known is named.
    """
    if (plan is None) == (template is None):
        raise click.UsageError("name what is to be estimated: --plan FILE or --template NAME")
    if plan is not None and given:
        raise click.UsageError("--parameter is for templates; a plan has none")
    functions, values = tools_named(tools), dict(map(_parameter, given))
    steps = template if plan is None else _steps(plan)
    try:
        settings = config.load(file) if file else config.Settings.empty()
        with closing(Guard("memory://", config=settings)) as guard:
            found = guard.estimate(steps, tools=functions, parameters=values, model_usd=model_usd)
    except ConfigurationError as error:
        raise Failure(error.message, Exit.CHECK_FAILED) from error
    show_one(_json(found), lambda: _lines(found))
    return Exit.CHECK_FAILED if found.misfits else Exit.DONE


def _parameter(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise click.UsageError(f"--parameter {text}: write NAME=VALUE, such as ticket_id=T-1")
    return name, value


def _steps(plan: str) -> Any:
    try:
        found = loads(Path(plan).read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Failure(f"{plan}: the plan cannot be read ({reason})") from error
    return found["steps"] if isinstance(found, dict) and found.keys() == {"steps"} else found


def _json(found: Estimate) -> dict[str, Any]:
    return {
        "fits": found.fits, "tool_calls": found.tool_calls, "model_calls": found.model_calls,
        "tool_usd": _usd(found.tool_usd), "model_usd": _usd(found.model_usd),
        "human_minutes": None if found.human_minutes is None else f"{found.human_minutes:f}",
        "human_usd": _usd(found.human_usd), "total_usd": usd(found.total_usd),
        "unknown": list(found.unknown), "misfits": list(found.misfits),
        "steps": [_step_json(step) for step in found.steps],
    }  # fmt: skip


def _step_json(step: StepEstimate) -> Mapping[str, Any]:
    return {
        "step": step.number, "tool": step.tool, "calls": step.calls, "starts": step.starts,
        "usd": _usd(step.usd), "moved_usd": usd(step.moved_usd), "decisions": step.decisions,
    }  # fmt: skip


def _usd(amount: Decimal | None) -> str | None:
    return None if amount is None else usd(amount)


def _lines(found: Estimate) -> Iterator[Line]:
    for step in found.steps:
        yield Line(f"step {step.number}", _step(step))
    models = "unknown" if found.model_calls is None else str(found.model_calls)
    yield Line("calls", f"{found.tool_calls} of tools, {models} of models")
    yield Line("tools", _known(found.tool_usd))
    yield Line("models", _known(found.model_usd))
    yield Line("people", _people(found))
    sign = "+" if found.unknown else ""
    yield Line("worst case", f"{money(found.total_usd)}{sign}")
    for problem in found.unknown:
        yield Line("not known", escaped(problem), "waiting")
    for problem in found.misfits:
        yield Line("too much", escaped(problem), "failed")
    if found.fits:
        yield Line("ok", "the limits have room for the worst case", "ok")


def _known(amount: Decimal | None) -> str:
    return "unknown" if amount is None else money(amount)


def _step(step: StepEstimate) -> str:
    tries = f", {step.starts} starts" if step.starts > step.calls else ""
    moved = f", moves {money(step.moved_usd)}" if step.moved_usd else ""
    people = f", {count(step.decisions, 'decision')} of people" if step.decisions else ""
    calls = count(step.calls, "call")
    return f"{escaped(step.tool)}, {calls}{tries}, {_known(step.usd)}{moved}{people}"


def _people(found: Estimate) -> str:
    if not any(step.decisions for step in found.steps):
        return money(found.human_usd)
    minutes = "unknown" if found.human_minutes is None else f"{found.human_minutes:f} min"
    return f"{minutes}, {_known(found.human_usd)}"
