"""The guard: one store and one configuration, and the doors through which teams use them."""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING, Any, Self

from . import _signature, stages
from . import config as configuration
from ._binding import bound
from ._limits import limits_of
from ._models import Surroundings
from .declaration import DEFAULT_GUARD, Declaration, declaration_of, guarded_function
from .errors import ConfigurationError
from .fallback import as_fallback
from .ledger import settling, switches
from .ledger.autonomy import Standing, standings
from .model import Principal, dollars, nanos
from .operations import Approvals, Effects, Runs
from .prices import Tokens, price_now, prices_of
from .protocols import Host
from .run import Run, new_run_id
from .stores import DEFAULT_URL, open_store
from .templates import collected, misfits
from .tool import Stage, Tool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from decimal import Decimal
    from pathlib import Path

    from .artifacts import Artifacts
    from .estimates import Estimate
    from .fallback import Fallback
    from .protocols import Clock, Store
    from .rollback import Rollback, Saga
    from .templates import Template
    from .tickets import Tickets
_LONGEST_ID = 512


class Guard:
    """Guards tools with one store and one configuration.

    Args:
        store: a store's URL such as `sqlite:///agentguard.db`, or a store.
        config: the settings; none by default.
        principal: who acts in runs that name nobody.
        prices: what models cost: a mapping of model name to US dollars per million input and
            output tokens (then cached and cache-writing ones, where they cost something else), a
            callable (model, input tokens, output tokens) to US dollars or None, `genai-prices`, or
            an `agentguard.prices.Prices`; the configuration's by default. A model without a price
            makes the cost of its run incomplete, never zero.
        clock: the time, for tests.
        templates: named sequences of calls for `run.follow`, besides those of the configuration.
        tickets: where tickets are filed, such as `agentguard.tickets.FileTickets("tickets.jsonl")`.

    Raises:
        ConfigurationError: the store is not one, or belongs to something else.
        StoreUnavailable: the store cannot be opened.
    """

    def __init__(
        self, store: str | Store = DEFAULT_URL, *, config: configuration.Settings | None = None,
        principal: Principal | None = None, prices: Any = None, clock: Clock | None = None,
        templates: Iterable[Template] = (), tickets: Tickets | None = None,
    ) -> None:  # fmt: skip
        from .enforcement import Slos

        _signature.load()
        self.settings = config or configuration.Settings.empty()
        self.store: Store = open_store(store, clock=clock) if isinstance(store, str) else store
        self.principal = principal or Principal()
        self.templates = collected(self.settings.templates, templates)
        self.tickets = tickets
        self.prices = prices_of(prices, self.settings.prices, self.settings.model_prices)
        self._tools: dict[str, Tool] = {}
        self.approvals = Approvals(self.store, self)
        self.slos = Slos(self)
        self.effects = Effects(self.store, self.slos.of_tools)
        self.runs = Runs(self.store)
        self.store.transact(settling.sweep, self.slos.of_tools)
        self.slos.count_abandoned()

    @classmethod
    def from_config(
        cls, path: str | Path, *, store: str | Store = DEFAULT_URL, **options: Any
    ) -> Self:
        """Return a guard with the configuration in a YAML file.

        Raises:
            ConfigurationError: with file, line and what to change.
        """
        return cls(store, config=configuration.load(path), **options)

    def run(
        self, workflow: str | None = None, *, run_id: str | None = None,
        principal: Principal | None = None, autonomy: str | None = None, host: Host | None = None,
        join: bool = False, falls_back_to: Any = None,
        verified_by: Callable[..., Any] | Iterable[Callable[..., Any]] = (), **budget: Any,
    ) -> Run:  # fmt: skip
        """Return a run to enter with `with` or `async with`; a known id goes on where it stopped.

        Args:
            workflow: its name; the configuration's by default.
            run_id: its id; a fresh one by default.
            principal: who acts; the guard's by default.
            autonomy: how far the agent may go by itself: `draft`, `propose`, `approve` or `auto`;
                of this and the configuration's the lowest counts.
            host: the agent runtime around it; adapters give it.
            join: for adapters that enter a run around every single call: a run that is running
                is only joined, and left running unless `Run.finish` is called.
            falls_back_to: how the run ends safely when a call cannot be made whose tool declares
                nothing itself: `draft`, `ticket`, `ask`, a callable, or an
                `agentguard.fallback.Fallback`.
            verified_by: verifiers of the run as a whole, as `Run.verify_with` takes them.
            budget: `max_steps`, `max_model_calls`, `max_tool_calls`, `max_spend_usd`,
                `max_seconds`, `max_repeats`, `loops` (`"off"`, or after how many rounds
                a loop is stopped); they replace the configuration's.

        Raises:
            ConfigurationError: an unknown limit, or one that is no number.
        """
        name = workflow or self.settings.workflow or "workflow"
        limits = limits_of(self.settings.limits, budget)
        around = Surroundings(
            self.store, self.settings.version, self.prices, self._sensitive_of,
            dict(self.settings.routing), self.settings.trace != "none",
        )  # fmt: skip
        chosen = run_id if run_id is not None else new_run_id()
        if not chosen or len(chosen) > _LONGEST_ID:
            raise ConfigurationError(f"run_id is a text of 1 to {_LONGEST_ID} characters")
        run = Run(
            self,
            around,
            name,
            chosen,
            principal or self.principal,
            limits,
            host or Host(),
            join=join,
            autonomy=stages.said(self.settings.autonomy, autonomy),
            fallback=self._fallback_of(falls_back_to),
        )
        if verified_by != ():
            run.verify_with(*([verified_by] if callable(verified_by) else verified_by))
        return run

    def sheet(self, tool: Any) -> tuple[str, Tool | None]:
        """Return a tool's name, and its sheet if it was bound already; a decorated one is bound."""
        declaration = declaration_of(tool)
        if declaration is not None:
            sheet = self.bind(declaration)
            return sheet.name, sheet
        return tool, self._tools.get(tool) if isinstance(tool, str) else None

    def _fallback_of(self, given: Any) -> Fallback | None:
        fallback = as_fallback(self.settings.falls_back_to if given is None else given)
        if fallback is not None:
            fallback.check("the run", self.tickets)
        return fallback

    def _sensitive_of(self, tool: str) -> frozenset[str]:
        known = self._tools.get(tool)
        return known.sensitive if known else frozenset()

    def bind(self, declaration: Declaration) -> Tool:
        """Return the sheet of a declared tool under this guard's configuration.

        Raises:
            ConfigurationError: the declaration is not complete; for a write, it lacks a key.
        """
        tool = declaration.tools.get(self)
        if tool is None:
            # Without a lock: a fork could inherit it locked, and two equal sheets do no harm.
            tool = bound(declaration, self.settings)
            if tool.fallback is not None:
                tool.fallback.check(tool.name, self.tickets)
            declaration.tools[self] = tool
            self._tools[tool.name] = tool
        return tool

    def protect(
        self, function: Callable[..., Any], *, name: str | None = None,
        input_schema: Mapping[str, Any] | None = None,
        output_schema: Mapping[str, Any] | None = None, **policy: Any,
    ) -> Callable[..., Any]:  # fmt: skip
        """Return *function* guarded, for tools one cannot decorate; a decorated one as it is.

        Args:
            function: what runs the tool.
            name: the tool's name; policy of this name in the configuration applies too.
            input_schema: JSON Schema of the arguments, for tools that come with one; *function*
                is called with keywords.
            output_schema: JSON Schema of the result.
            policy: the options of `tool_contract`, `idempotent` (`key`, `per`, …),
                `requires_approval` (`when`, `roles`, …) and `budget`; a nested dict under
                `idempotency`, `approval` or `budget` reads as in YAML.

        Raises:
            ConfigurationError: an unknown or missing option, with the sentence that mends it.
        """
        guarded = function if declaration_of(function) else guarded_function(function)
        declaration = declaration_of(guarded)
        if declaration is None:
            raise ConfigurationError(f"{function!r} cannot be guarded")
        if Stage.CONTRACT in declaration.policies and not policy:
            self.bind(declaration)  # decorated already: that is its policy
            return guarded
        known = name or declaration.name
        section = self.settings.tools.get(known)
        from .policies import apply_policy

        apply_policy(
            guarded, known, policy, section, input_schema=input_schema, output_schema=output_schema
        )
        self.bind(declaration)
        return guarded

    def check(self, tools: Iterable[Any]) -> list[str]:
        """Return what is wrong with decorated *tools* and this configuration, before any effect.

        Each problem is one sentence; an empty list means that all tools can be used.
        """
        problems: list[str] = []
        facts: set[str] = set()
        for tool in tools:
            declaration = declaration_of(tool)
            if declaration is None:
                problems.append(f"{getattr(tool, '__name__', tool)!s} has no agentguard decorator")
                continue
            try:
                facts |= set(self.bind(declaration).facts)
            except ConfigurationError as error:
                problems.append(error.message)
        problems += misfits(self.templates.values(), self._tools, self.settings.place)
        unknown = self.settings.unknown_facts(facts) + self.settings.unknown_tools(self._tools)
        return problems + [error.message for error in unknown]

    def estimate(
        self, plan: Any, *, tools: Iterable[Any] = (), parameters: Mapping[str, Any] | None = None,
        model_usd: Decimal | int | str | None = None, model: str | None = None,
        input_tokens: int = 0, output_tokens: int = 0, **budget: Any,
    ) -> Estimate:  # fmt: skip
        """Return what a plan or a template costs at the worst, before anything starts.

        Args:
            plan: steps as for `run.plan`, a `Template`, or a template's name.
            tools: the tools that it names, as far as this guard does not know them yet.
            parameters: of the template; without them its arguments count as free.
            model_usd: what one call of a model costs at the most.
            model: the model, to have that said by the guard's prices for so many tokens.
            input_tokens: of one call at the most.
            output_tokens: of one call at the most.
            budget: limits as for `run`; they replace the configuration's.

        Raises:
            ConfigurationError: it is no plan, or a tool cannot be used.
        """
        from .estimates import estimate

        for tool in tools:
            self._know(tool)
        each = None if model_usd is None else dollars(nanos(model_usd))
        if each is None and model is not None:
            tokens = Tokens(input_tokens, output_tokens)
            price = price_now(self.prices, self.store.clock, model, tokens)
            each = None if price is None else price.usd
        limits = limits_of(self.settings.limits, budget)
        return estimate(self, plan, parameters=parameters or {}, limits=limits, model_usd=each)

    def _know(self, tool: Any) -> None:
        declaration = declaration_of(tool)
        if declaration is not None:
            self.bind(declaration)
        else:
            self.protect(tool)

    def kill(
        self, *, tool: str | None = None, agent: str | None = None, tenant: str | None = None,
        all: bool = False, by: str, reason: str, lift: bool = False,  # noqa: A002 - the switch over everything
    ) -> None:  # fmt: skip
        """Stop a tool, an agent, a tenant or everything; no start passes after this commits.

        Args:
            tool: this tool, for everybody.
            agent: this agent, with all its tools and model calls.
            tenant: everybody in this tenant.
            all: everything in this store.
            by: the person who does it.
            reason: shown to everybody who is stopped.
            lift: take the switch away again.

        Raises:
            ConfigurationError: not exactly one thing is named, or nobody and no reason.
        """
        named = {"tool": tool, "agent": agent, "tenant": tenant, "all": "" if all else None}
        chosen = [(kind, name) for kind, name in named.items() if name is not None]
        if len(chosen) != 1 or not by.strip() or not reason.strip():
            raise ConfigurationError(
                "kill: name one of tool, agent, tenant, all, and give by and reason"
            )
        kind, name = chosen[0]
        if lift:
            self.store.transact(switches.lift, kind, name, by)
        else:
            self.store.transact(switches.throw, kind, name, by, reason)

    def rollback(
        self, run_id: str, *, tools: Iterable[Any], by: str, reason: str, step: int | None = None,
        dry_run: bool = False, tenant: str | None = None,
    ) -> Rollback:  # fmt: skip
        """Undo what a run wrote, the last effect first; once more goes on where it stopped.

        It stops at the first effect that is in doubt, whose undo fails or waits for people, and
        names it. What cannot be undone is listed.

        Args:
            run_id: the run; a unique beginning of its id is enough.
            tools: the decorated functions that it wrote with.
            by: the person who wants it.
            reason: why; it is recorded.
            step: back to this step, the step included; by default all of it.
            dry_run: only say what would be undone.
            tenant: look only in this tenant.

        Raises:
            DecisionRefused: by or reason is missing, the run is unknown, or it is still running.
            ConfigurationError: a tool is missing whose effects have an undo.
        """
        return self._saga(tools, run_id, by, reason, step, dry_run, tenant).drive()

    async def arollback(
        self, run_id: str, *, tools: Iterable[Any], by: str, reason: str, step: int | None = None,
        dry_run: bool = False, tenant: str | None = None,
    ) -> Rollback:  # fmt: skip
        """Like `rollback`, on an event loop."""
        return await self._saga(tools, run_id, by, reason, step, dry_run, tenant).run()

    def _saga(self, tools: Iterable[Any], *wish: Any) -> Saga:
        from .rollback import Saga, Wish

        return Saga(self, Wish(*wish), tools)

    def pin(
        self, tool: str, stage: str, *, by: str, reason: str, tenant: str | None = None
    ) -> Standing:  # fmt: skip
        """Pin a tool at a stage, whatever it has earned; no start passes after this commits.

        Args:
            tool: its name.
            stage: `draft`, `propose`, `approve` or `auto`; what runs and configuration say caps it.
            by: the person who does it.
            reason: why.
            tenant: in this tenant; the guard's own by default.

        Raises:
            ConfigurationError: an unknown stage, or nobody and no reason.
        """
        return stages.pin(self, tool, stages.checked(stage, "pin"), by, reason, tenant)

    def unpin(self, tool: str, *, by: str, reason: str, tenant: str | None = None) -> Standing:
        """Take a tool's pin away: what it has earned counts again.

        Raises:
            ConfigurationError: nobody and no reason is named.
        """
        return stages.pin(self, tool, None, by, reason, tenant)

    def incident(self, *, tool: str, by: str, reason: str, tenant: str | None = None) -> Standing:
        """Take a tool one stage down, as far as the configuration's `demote.to`.

        No start passes after this commits. Its verified outcomes count anew.

        Raises:
            ConfigurationError: nobody and no reason is named.
        """
        return stages.incident(self, tool, by, reason, tenant)

    def standings(self, *, tenant: str | None = None) -> list[Standing]:
        """Return how tools stand: what they have earned, what they are pinned at, and why."""
        return self.store.read(standings, tenant)

    @functools.cached_property
    def artifacts(self) -> Artifacts:
        """What functions with `agentguard.caching.cached` have made."""
        from .artifacts import Artifacts

        return Artifacts(self.store)

    def close(self) -> None:
        """Close the store."""
        if "artifacts" in vars(self):
            self.artifacts.close()
        self.store.close()


_CONFIGURED: list[Guard] = []
_CONFIGURING = threading.Lock()


def configure(guard: Guard | None = None, **options: Any) -> Guard:
    """Set the guard for calls outside any run, and return it.

    Args:
        guard: the guard; or give the options of `Guard` instead.
        options: as for `Guard`.
    """
    chosen = guard or Guard(**options)
    with _CONFIGURING:
        _CONFIGURED[:] = [chosen]
    return chosen


def configured() -> Guard:
    """Return the configured guard; the default store in `.agentguard/` if none was configured."""
    with _CONFIGURING:
        if not _CONFIGURED:
            _CONFIGURED.append(Guard())
        return _CONFIGURED[0]


@contextlib.contextmanager
def override(guard: Guard) -> Generator[Guard]:
    """Make *guard* the configured one for a block, and put back what was before; for tests."""
    with _CONFIGURING:
        before, _CONFIGURED[:] = list(_CONFIGURED), [guard]
    try:
        yield guard
    finally:
        with _CONFIGURING:
            _CONFIGURED[:] = before


DEFAULT_GUARD.append(configured)
