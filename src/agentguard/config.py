"""Reads `agent_run.yaml` and refuses, with file, line and mend, whatever it would not obey."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import canonical, routing
from .errors import ConfigurationError
from .expressions import suggestion
from .model import Circuit, HumanCosts, Limits, RetryBudget, nanos

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from decimal import Decimal

    from ._keys import AgentRun, ToolPolicy
    from ._price_values import Rates
    from ._yaml import Document
    from .autonomy import Autonomy
    from .routing import Escalation, Target
    from .slos import Slo
    from .templates import Template


def _nothing() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Settings:
    """What a configuration file says.

    Attributes:
        source: the file's name, as errors show it.
        workflow: the workflow the file is for, if it says so.
        limits: the budget of a run.
        thresholds: fact name → amount above which a person decides.
        routing: which model does what: `executor_model` and the like, each with its alias.
        trace: `opentelemetry` or `none`.
        retention_days: how long results and contents are kept; None leaves it to the store.
        tools: tool name → policy.
        autonomy: how far agents may go by themselves; None leaves it to runs.
        templates: name → sequence of calls.
        outside: what becomes of calls outside a plan at the least: note, ask or refuse.
        costs: what people's time costs.
        irreversible_demands: the independence class of a verified tool that nothing can undo.
        spend_demands: US dollars, and the class of a write that costs or moves more.
        falls_back_to: how runs end whose calls cannot be made: `draft`, `ticket` or `ask`.
        circuits: tool name → when it is left alone because it fails.
        retries: how many retries the agents of a tenant may make together; None for any number.
        models: alias → the model behind it.
        escalation: when a heavier model takes over.
        slos: the service levels, by their names.
        prices: the list that says what models cost.
        model_prices: model → what it costs; comes before that list.
        waivers: check, or tool:check → why `agentguard check` lets it be.
        lines: dotted key, such as `approvals.refund_usd_over` → line.
    """

    source: str = ""
    workflow: str | None = None
    limits: Limits = field(default_factory=Limits)
    thresholds: Mapping[str, Decimal] = field(default_factory=_nothing)
    routing: Mapping[str, str] = field(default_factory=_nothing)
    trace: str = "opentelemetry"
    retention_days: int | None = None
    tools: Mapping[str, ToolPolicy] = field(default_factory=_nothing)
    autonomy: Autonomy | None = None
    templates: Mapping[str, Template] = field(default_factory=_nothing)
    outside: str | None = None
    costs: HumanCosts = field(default_factory=HumanCosts)
    irreversible_demands: str = "model"
    spend_demands: tuple[tuple[Decimal, str], ...] = ()
    falls_back_to: str | None = None
    circuits: Mapping[str, Circuit] = field(default_factory=_nothing)
    retries: RetryBudget | None = field(default_factory=RetryBudget)
    models: Mapping[str, Target] = field(default_factory=_nothing)
    escalation: Escalation | None = None
    slos: tuple[Slo, ...] = ()
    prices: str | None = None
    model_prices: Mapping[str, Rates] = field(default_factory=_nothing)
    waivers: Mapping[str, str] = field(default_factory=_nothing)
    lines: Mapping[str, int] = field(default_factory=_nothing, repr=False, compare=False)

    @classmethod
    def empty(cls) -> Settings:
        """Return the settings of no file: no limits, no thresholds, no tools."""
        return cls()

    @cached_property
    def version(self) -> str:
        """The version of the policy: equal for files that rule the same, however written."""
        ruled: dict[str, Any] = {
            "limits": {name: v for name, v in asdict(self.limits).items() if v is not None},
            "thresholds": self.thresholds,
            "routing": self.routing,
            "tools": {n: tool.model_dump(exclude_none=True) for n, tool in self.tools.items()},
        }
        if self.models:
            ruled["models"] = {alias: asdict(target) for alias, target in self.models.items()}
        if self.escalation is not None:
            ruled["escalation"] = asdict(self.escalation)
        if self.falls_back_to is not None:
            ruled["falls_back_to"] = self.falls_back_to
        if self.circuits:
            ruled["circuits"] = {name: asdict(circuit) for name, circuit in self.circuits.items()}
        if self.outside is not None:
            ruled["plans"] = self.outside
        if self.templates:
            ruled["templates"] = {name: asdict(t) for name, t in self.templates.items()}
        if self.autonomy is not None:
            ruled["autonomy"] = asdict(self.autonomy)
        if self.spend_demands or self.irreversible_demands != "model":
            ruled["verification"] = [self.irreversible_demands, self.spend_demands]
        if ruling := [asdict(slo) for slo in self.slos if slo.demote is not None]:
            ruled["slos"] = ruling
        return hashlib.sha256(canonical.dumps(ruled).encode()).hexdigest()[:12]

    def place(self, key: str) -> str:
        """Return file and line of a dotted key, as errors begin; nothing for what no file says."""
        line = self.lines.get(key)
        return "" if line is None else f"{self.source}:{line}: "

    def unknown_facts(self, declared: Collection[str]) -> list[ConfigurationError]:
        """Return an error for each threshold on a fact that is not among *declared*."""
        return [self._unknown(fact, declared) for fact in self.thresholds if fact not in declared]

    def unknown_tools(self, bound: Collection[str]) -> list[ConfigurationError]:
        """Return an error for each tool that has something of its own and is not among *bound*."""
        staged = () if self.autonomy is None else self.autonomy.tools
        named = [(f"autonomy.tools.{tool}", "stage", tool) for tool in staged]
        named += [(f"circuits.{tool}", "circuit", tool) for tool in self.circuits]
        named += [(f"slos.{s.name}.tool", "service level", s.tool) for s in self.slos if s.tool]
        return [self._unbound(*place, bound) for place in named if place[-1] not in bound]

    def _unbound(
        self, key: str, what: str, tool: str, bound: Collection[str]
    ) -> ConfigurationError:
        mend = suggestion(tool, bound) or "; give the tool, or remove it"
        return ConfigurationError(
            f"{self.source}:{self.lines.get(key, 1)}: {key} is the {what} of a tool that is not among"
            f" those bound{mend}"
        )

    def _unknown(self, fact: str, declared: Collection[str]) -> ConfigurationError:
        key = f"approvals.{fact}_over"
        mend = suggestion(fact, declared) or "; declare it in the tool's facts, or remove it"
        return ConfigurationError(
            f"{self.source}:{self.lines.get(key, 1)}: {key} is a threshold on the fact {fact!r},"
            f" which no bound tool declares{mend}"
        )


def load(path: str | os.PathLike[str]) -> Settings:
    """Read the configuration file at *path*.

    Raises:
        ConfigurationError: with file, line and mend, for everything that would not be obeyed.
    """
    from ._yaml import MAX_BYTES

    source = os.fspath(path)
    try:
        with Path(source).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"{source}: the configuration cannot be read ({reason}); check the path"
        ) from None
    return loads(data, source)


def loads(data: str | bytes, source: str = "agent_run.yaml") -> Settings:
    """Read a configuration from memory; *source* is the file name that errors show.

    Raises:
        ConfigurationError: as `load`.
    """
    from ._agent_run import checked  # its models are made only when a file is read
    from ._yaml import read

    document = read(data, source)
    settings = _settings(checked(document), document)
    routing.check(settings)
    return settings


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the file, for editors."""
    from ._keys import File, Schema

    return File.model_json_schema(schema_generator=Schema)


def _settings(run: AgentRun, document: Document) -> Settings:
    from ._keys_routing import targets
    from ._yaml import places

    spend, heavier = run.max_spend_usd, run.routing.escalation
    limits = Limits(
        max_steps=run.max_steps,
        max_model_calls=run.max_model_calls,
        max_tool_calls=run.max_tool_calls,
        max_spend=None if spend is None else nanos(spend),
        max_seconds=run.max_seconds,
        max_repeats=run.max_repeats,
        loops=0 if run.loops == "off" else run.loops,
    )
    return Settings(
        source=document.source,
        workflow=run.workflow,
        limits=limits,
        thresholds=run.thresholds(),
        routing=run.routing.aliases(),
        trace=run.logging.trace or "opentelemetry",
        retention_days=run.logging.retention_days,
        tools=run.tools,
        autonomy=None if run.autonomy is None else run.autonomy.autonomy(),
        templates={name: keys.template(name) for name, keys in run.templates.items()},
        outside=run.plans.outside,
        costs=run.costs.human(),
        irreversible_demands=run.verification.irreversible,
        spend_demands=run.verification.spend(),
        falls_back_to=run.falls_back_to,
        circuits={name: policy.circuit() for name, policy in run.circuits.items()},
        retries=None if run.retry_budget == "off" else run.retry_budget.budget(),
        models=targets(run.models),
        escalation=None if heavier is None else heavier.escalation(),
        slos=tuple(keys.slo(name) for name, keys in run.slos.items()),
        prices=run.costs.prices,
        model_prices=run.costs.rates(),
        waivers=run.check.waive,
        lines={".".join(path[1:]): n.line for path, n in places(document.root) if path[1:]},
    )
