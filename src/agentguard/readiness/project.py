"""What is graded: tools as they are declared, the configuration, the record, and who acts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from importlib import util
from typing import TYPE_CHECKING, Any, cast

from ..config import Settings
from ..guard import Guard
from ..model import Principal
from ..prices import Unknown
from ..tool import Stage
from .subjects import Subject, subject_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..prices import Prices
    from .sample import Sample

_LIMITS = ("max_steps", "max_model_calls", "max_spend")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where spans go, as far as this process and its environment tell.

    Attributes:
        sdk: whether opentelemetry-sdk is installed.
        provider: the class of the provider that the imported modules have set, if any.
        idle: whether that provider gives spans to nobody.
        targets: variables of the environment that name a collector.
        off: the variable that switches telemetry off, if one does.
    """

    sdk: bool = False
    provider: str | None = None
    idle: bool = False
    targets: tuple[str, ...] = ()
    off: str | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """All that the checks look at.

    Attributes:
        subjects: the tools that were given.
        principals: who acts, as far as that was given.
        prices: of a guard that was given, if it knows what models cost.
        limits: what limits a run, by the name of the limit, and who says so.
        record: the newest runs; None where there is no record.
        workflow: whose runs count; None for all.
    """

    settings: Settings = field(default_factory=Settings.empty)
    subjects: tuple[Subject, ...] = ()
    principals: tuple[Principal, ...] = ()
    prices: Prices | None = None
    limits: Mapping[str, str] = field(default_factory=dict[str, str])
    telemetry: Telemetry = field(default_factory=Telemetry)
    record: Sample | None = None
    workflow: str | None = None

    @property
    def source(self) -> str:
        """What the configuration is called, also where there is none yet."""
        return self.settings.source or "agent_run.yaml"

    @property
    def writes(self) -> list[Subject]:
        """The tools that write."""
        return [subject for subject in self.subjects if subject.effect == "write"]

    def line(self, key: str) -> int | None:
        """Return the line of a dotted key of the configuration, or of what it would stand under."""
        if not self.settings.source:
            return None
        lines = self.settings.lines
        while key and key not in lines:
            key = key.rpartition(".")[0]
        return lines.get(key, 1)


def project_of(
    things: Iterable[Any], settings: Settings | None, record: Sample | None = None,
    *, workflow: str | None = None,
) -> Project:  # fmt: skip
    """Return what is to be graded.

    Args:
        things: tools, and beside them functions with `@workflow`, guards and principals.
        settings: of the configuration file; those of a guard among *things* by default.
        record: the newest runs.
        workflow: whose runs count.
    """
    given = list(things)
    guards = [thing for thing in given if isinstance(thing, Guard)]
    named = [thing for thing in given if isinstance(thing, Principal)]
    tools = [thing for thing in given if not isinstance(thing, (Guard, Principal))]
    ruled = settings or next((guard.settings for guard in guards), Settings.empty())
    subjects = [subject_of(thing, ruled) for thing in tools]
    return Project(
        settings=ruled,
        subjects=tuple(subject for subject in subjects if Stage.WORKFLOW not in subject.policies),
        principals=(*named, *(guard.principal for guard in guards)),
        prices=next((g.prices for g in guards if not isinstance(g.prices, Unknown)), None),
        limits=_limits(ruled, subjects),
        telemetry=_telemetry(os.environ),
        record=record,
        workflow=workflow or ruled.workflow,
    )


def _limits(settings: Settings, subjects: Iterable[Subject]) -> dict[str, str]:
    """Return the limits of runs, as the configuration and the budgets of workflows say them."""
    found: dict[str, str] = {}
    for subject in subjects:
        budget = subject.policies.get(Stage.BUDGET)
        if Stage.WORKFLOW in subject.policies and budget is not None:
            limits = cast("Any", budget).run_limits(subject.name)
            found |= {n.removesuffix("_usd"): f"@budget on {subject.name}" for n in limits}
    said = [name for name in _LIMITS if getattr(settings.limits, name) is not None]
    return found | dict.fromkeys(said, settings.source or "the guard")


def _telemetry(environment: Mapping[str, str]) -> Telemetry:
    from opentelemetry import trace

    chosen = trace.get_tracer_provider()
    provider = type(chosen)
    inert = provider.__module__.startswith("opentelemetry.trace")
    switches = {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "none"}
    off = [n for n, value in switches.items() if environment.get(n, "").lower() == value]
    return Telemetry(
        sdk=util.find_spec("opentelemetry.sdk") is not None,
        provider=None if inert else provider.__name__,
        idle=_takers(chosen) == (),
        targets=tuple(name for name in _ENDPOINTS if environment.get(name)),
        off=next(iter(off), None),
    )


def _takers(provider: object) -> object:
    """Return the processors of the SDK's provider; None of a provider that is made otherwise.

    The SDK has no public way to tell.
    """
    return getattr(getattr(provider, "_active_span_processor", None), "_span_processors", None)
