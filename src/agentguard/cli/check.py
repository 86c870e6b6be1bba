"""`agentguard check`: whether a project is ready for more volume, with evidence and what to do next."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import config as configuration
from ..declaration import declaration_of
from ..durations import seconds
from ..errors import ConfigurationError
from ..guard import Guard
from ..model import Principal
from ..readiness import (
    AREAS,
    CHECKS,
    LEVELS,
    NEWEST,
    STATUSES,
    grade,
    project_of,
    read_sample,
    sarif,
)
from ..tool import Stage
from .output import Line, dumped, sheet
from .shell import CODES, Command, Exit, Failure, busy, lasting, say, shell
from .text import count, escaped
from .tools import NAMED, things_named

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

    from ..config import Settings
    from ..readiness import Finding, Project, Report, Sample
    from ..readiness.values import Level, Status

_KEYS = (
    "JSON keys: bar, met, below, config, workflow, tools, record (runs, there, days, or null),"
    " minimum and scale (pass, waived, unknown, fail: numbers of checks), findings (area, id, title,"
    " level, status, evidence, action, tool, file, line, waived). jsonl: one finding a line."
)
_REST: tuple[tuple[Status, str], ...] = (
    ("waived", "waived"), ("unknown", "unknown"), ("fail", "failed"),
)  # fmt: skip
_STATES = {"pass": "ok", "waived": "duplicate", "unknown": "note", "fail": "failed"}
_WIDEST = max(map(len, STATUSES))
_CONFIG = "agent_run.yaml"


@click.command("check", cls=Command, epilog=f"{_KEYS} {CODES}")
@click.option("--tools", multiple=True, metavar=NAMED,
              help="A tool, a list of them, a guard or a principal; a module: all in it.")  # fmt: skip
@click.option("--config", metavar="FILE", type=click.Path(),
              help=f"The configuration; {_CONFIG} if there is one.")  # fmt: skip
@click.option("--workflow", metavar="NAME", help="Only its runs; the configuration's by default.")
@click.option("--since", default="30d", show_default=True, metavar="TIME", callback=lasting,
              help="How far back runs count.")  # fmt: skip
@click.option("--newest", default=NEWEST, show_default=True, type=click.IntRange(min=1),
              metavar="N", help="So many runs are read at the most.")  # fmt: skip
@click.option("--bar", type=click.Choice(LEVELS), default="minimum", show_default=True,
              help="Exit 5 below this bar.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["text", "json", "sarif"]),
              help="How to print what was found; as --output by default.")  # fmt: skip
def check(
    tools: tuple[str, ...], config: str | None, workflow: str | None, since: str, newest: int,
    bar: Level, form: str | None,
) -> int:  # fmt: skip
    """Grade a project: a minimum bar, and signals that it may scale. Exit 5 below the bar.

    The minimum bar is read from tools and configuration, the scale-ready signal from the record.
    What cannot be told is unknown, and no pass.
    """
    settings = _settings(config)
    things = things_named(tools, _is_meant)
    project = project_of(things, settings, workflow=workflow)
    sample = _sample(project, seconds(since, "--since"), newest)
    project = project_of(things, settings, sample, workflow=workflow)
    report = grade(project)
    below = report.below(bar)
    _print(form or shell().output, project, report, bar)
    for name in report.unheard:
        say(f"{project.source}: the waiver of {name} is of no check that there is")
    for name in report.idle:
        say(f"{project.source}: the waiver of {name} was not needed")
    if below:
        say(f"below the bar ({bar}): {', '.join(below)}")
    return Exit.CHECK_FAILED if below or report.unheard else Exit.DONE


def _is_meant(thing: object) -> bool:
    """Return whether a thing in a module tells who acts, or within what limits."""
    declaration = declaration_of(thing)
    if declaration is not None:
        return Stage.WORKFLOW in declaration.policies
    return isinstance(thing, (Guard, Principal))


def _settings(config: str | None) -> Settings | None:
    path = config or (_CONFIG if Path(_CONFIG).is_file() else None)
    try:
        return configuration.load(path) if path else None
    except ConfigurationError as error:
        raise Failure(error.message, Exit.CHECK_FAILED) from None


def _sample(project: Project, since: float, newest: int) -> Sample | None:
    """Read the record; a store that nobody named may not be there yet."""
    if not shell().named and not shell().path().is_file():
        return None
    with shell().guard() as guard, busy("reading the record"):
        return read_sample(
            guard.store, workflow=project.workflow, tenant=shell().tenant, since=since,
            newest=newest,
        )  # fmt: skip


def _print(form: str, project: Project, report: Report, bar: Level) -> None:
    if form == "sarif":
        click.echo(dumped(sarif(report, CHECKS, project.source), 2))
    elif form == "json":
        click.echo(dumped(_data(project, report, bar), 2))
    elif form == "jsonl":
        for finding in report.findings:
            click.echo(dumped(_finding(finding)))
    else:
        _text(project, report)


def _data(project: Project, report: Report, bar: Level) -> dict[str, Any]:
    record, below = project.record, report.below(bar)
    return {
        "bar": bar, "met": not (below or report.unheard), "below": below,
        "config": project.settings.source or None, "workflow": project.workflow,
        "tools": [subject.name for subject in project.subjects],
        "record": record and {"runs": len(record.runs), "there": record.there, "days": str(record.days)},
        **{level: {s: report.counts(level)[s] for s in STATUSES} for level in LEVELS},
        "findings": [_finding(finding) for finding in report.findings],
    }  # fmt: skip


def _finding(finding: Finding) -> dict[str, Any]:
    names = ("area", "id", "title", "level", "status", "evidence", "action", "tool", "file",
             "line", "waived")  # fmt: skip
    return {name: getattr(finding, name) for name in names}


def _text(project: Project, report: Report) -> None:
    click.echo(escaped(_head(project)))
    for area in AREAS:
        found = [finding for finding in report.findings if finding.area == area]
        click.echo(f"\n{area.upper()}")
        sheet([line for check in _checks(found) for line in _lines(check)])
    click.echo(f"\n{_summary(report)}")


def _checks(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Return findings by check; neighbours of which the same is unknown are told together."""
    told: list[list[Finding]] = []
    for _, each in groupby(findings, lambda finding: finding.id):
        check = list(each)
        if told and _same(told[-1]) == _same(check) is not None:
            told[-1] += check
        else:
            told.append(check)
    return told


def _same(check: Sequence[Finding]) -> tuple[str, ...] | None:
    """Return what is said where all that is said is that nothing can be told."""
    said = {(f.level, f.evidence, f.action) for f in check if f.status == "unknown" and not f.tool}
    return said.pop() if len(said) == 1 and len({f.status for f in check}) == 1 else None


def _head(project: Project) -> str:
    tools = count(len(project.subjects), "tool")
    config = project.settings.source or "no configuration"
    whose = f" of {project.workflow}" if project.workflow else ""
    record = f"{project.record}{whose}" if project.record else "no record"
    return f"{tools} · {config} · {record}"


def _lines(findings: Sequence[Finding]) -> Iterator[Line]:
    """Tell one check: how it stands, what was seen of which tools, and what to do."""
    worst = max((finding.status for finding in findings), key=STATUSES.index)
    for number, title in enumerate(dict.fromkeys(map(_title, findings))):
        yield Line("" if number else worst.ljust(_WIDEST), title, _STATES[worst])
    for status in reversed(STATUSES):
        chosen = [finding for finding in findings if finding.status == status]
        for same in _alike(chosen):
            mark = "" if status == worst else f"{status}: "
            yield Line("", escaped(f"{mark}{_tools(same)}{same[0].evidence}"))
            if status == "waived":
                yield Line("", escaped(f"waived: {same[0].waived}"), _STATES[status])
            elif status != "pass":
                yield Line("", escaped(f"next: {same[0].action}"), "open")


def _title(finding: Finding) -> str:
    scale = "  (scale-ready)" if finding.level == "scale" else ""
    return f"{finding.id}  {finding.title}{scale}"


def _alike(findings: Sequence[Finding]) -> Iterator[list[Finding]]:
    """Put together what is said with the same words of several tools."""
    alike: dict[tuple[str | None, ...], list[Finding]] = {}
    for each in findings:
        alike.setdefault((each.evidence, each.action, each.waived), []).append(each)
    yield from alike.values()


def _tools(findings: Sequence[Finding]) -> str:
    """Name the tools that the same is said of; with their places where something is to be done."""
    parts: list[str] = []
    for file, each in groupby((f for f in findings if f.tool), lambda finding: finding.file):
        same = list(each)
        lines = ", ".join(f":{finding.line}" for finding in same)
        place = f" ({file}{lines})" if file and same[0].status != "pass" else ""
        parts.append(", ".join(str(finding.tool) for finding in same) + place)
    return f"{', '.join(parts)}: " if parts else ""


def _summary(report: Report) -> str:
    minimum, scale = (_count(report.counts(level)) for level in LEVELS)
    return f"minimum bar: {minimum}; scale-ready: {scale}"


def _count(counts: Counter[Status]) -> str:
    rest = [f"{counts[status]} {word}" for status, word in _REST if counts[status]]
    return ", ".join([f"{counts['pass']} of {counts.total()}", *rest])
