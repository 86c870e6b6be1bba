"""A run: what agents do under one id, one budget and one record, however often it is resumed."""

from __future__ import annotations

import contextlib
import time
import uuid
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace

from . import telemetry
from ._confirming import Verified, refuted
from ._contexts import setting
from ._hosted import REF, Hosted
from ._hosts import Hosts
from ._meter import Meter
from ._models import ModelCalls, Modelled, Surroundings
from ._routes import Routed
from ._runtime import AsyncioRuntime, InlineRuntime, Runtime, run_inline
from .canonical import jsonable
from .costs import Costed, decision_costs
from .errors import ApprovalRequired, ConfigurationError, FellBack, GuardError, RunHalted
from .ledger import endings, lifecycle, slos
from .ledger import plans as planning
from .ledger.values import Execution, Opened, Opening, Pending, RunRef
from .model import Limits
from .outcomes import run_outcome
from .plans import Planned
from .redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from types import TracebackType

    from .autonomy import Autonomy
    from .model import Principal, Usage
    from .protocols import CallRef, Host
    from .tool import Call

T = TypeVar("T")

_RUN: ContextVar[Run | None] = ContextVar("agentguard_run", default=None)
CALL: ContextVar[Call | None] = ContextVar("agentguard_call", default=None)
"""The guarded call whose body is being executed."""
_LOOK_SECONDS = 1.0


def current_run() -> Run:
    """Return the run in which the caller is executing.

    Raises:
        ConfigurationError: outside of any run.
    """
    run = _RUN.get()
    if run is None:
        raise ConfigurationError(
            "there is no run here: call this inside `with guard.run(...)` or in a guarded tool"
        )
    return run


def active_run() -> Run | None:
    """Return the run in which the caller is executing, or None outside of any."""
    return _RUN.get()


class Run(Hosted, Modelled, Planned, Costed, Routed, Verified):
    """A run that is being executed. Made by `Guard.run`; enter it with `with` or `async with`.

    Attributes:
        id: the run's id; entering the same id again goes on with its budget, steps and effects.
        workflow: what kind of run it is.
        principal: who acts.
        part: 1 at first, counting up with every resume.
        guard: the guard that made it.
        outcome: how it came out when it was left last (`agentguard.outcomes`); None before that,
            and where it was only joined.
    """

    def __init__(
        self, guard: Any, around: Surroundings, workflow: str, run_id: str, principal: Principal,
        limits: Limits, host: Host, *, join: bool = False, autonomy: Autonomy | None = None,
        fallback: Any = None,
    ) -> None:  # fmt: skip
        self.guard, self.workflow, self.id = guard, workflow, run_id
        self.principal, self.hosts, self.part = principal, Hosts(host), 0
        self.around = around
        self.autonomy = autonomy
        self.execution: Execution | None = None
        self.ref = RunRef(principal.tenant, run_id, f"agent:{principal.agent}")
        self.meter = Meter(run_id, around.store.clock)
        self.redactor = Redactor()
        self.models = ModelCalls(
            self.ref, principal.agent, around, self.meter, self.redactor,
            self._shown, self._model_ended, workflow,
        )  # fmt: skip
        self.hash_key, self.former_keys = b"", False
        self.plans = planning.Plans()
        self.moving: dict[str, object] = {}
        self._asked = limits
        self._join, self._finish = join, False
        self.fallback = fallback
        self.waits: dict[tuple[type[Host], str], str] = {}
        self.heard = telemetry.Heard()
        self.outcome: str | None = None
        self.verdicts: Sequence[Mapping[str, Any]] = ()
        self._active, self._entered = 0.0, 0.0
        self._looked = 0.0
        self._switches: Mapping[str, str] = {}
        self._tokens: list[tuple[Token[Run | None], Any, trace.Span]] = []

    @property
    def call(self) -> Call:
        """The guarded call that is being executed; for tool bodies and what they call.

        Raises:
            ConfigurationError: outside of a guarded call.
        """
        call = CALL.get()
        if call is None:
            raise ConfigurationError("there is no guarded call here: `call` is for tool bodies")
        return call

    @property
    def answer(self) -> str | None:
        """What a person answered to the question in which this run fell back, or None."""
        ending = self.around.store.read(endings.look, self.ref)
        return None if ending is None else ending.answer

    def executed(self) -> Call | None:
        """Return the guarded call of this run whose body is being executed, if there is one."""
        call = CALL.get()
        return call if call is not None and call.run_id == self.id else None

    @property
    def limits(self) -> Limits:
        """The run's budget."""
        return self.meter.limits

    @property
    def usage(self) -> Usage:
        """What the run has used, as far as this process knows."""
        return self.meter.usage

    def finish(self) -> None:
        """Say that a joined run ends when it is left this time."""
        self._finish = True

    def call_ref(self) -> CallRef | None:
        """Return the model's call that is being executed, as the runtime or `tool_call` says.

        Inside another runtime that names none, it is the call in which that one is at work.
        """
        return self.hosts.call(REF.get()) if active_run() is self else None

    # Entering and leaving.

    def __enter__(self) -> Self:
        span, opened = run_inline(self._open(InlineRuntime()))
        self._activate(span, opened)
        return self

    async def __aenter__(self) -> Self:
        runtime = AsyncioRuntime()
        span, opened = await self._open(runtime)
        self._activate(span, opened)
        try:
            runtime.check_cancelled()
        except BaseException as cancelled:
            await self.__aexit__(type(cancelled), cancelled, None)
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        run_inline(self._leave(InlineRuntime(), error))

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        await self._leave(AsyncioRuntime(), error)

    async def _open(self, runtime: Runtime) -> tuple[trace.Span, Opened]:
        span = telemetry.start_workflow(self)
        try:
            return span, await self._begin(runtime, self._opening(telemetry.traceparent(span)))
        except BaseException as error:
            telemetry.end_workflow(span, self, run_outcome("failed", kind_of(error)), error)
            raise

    async def _begin(self, runtime: Runtime, opening: Opening) -> Opened:
        opened = await runtime.commit(self.around.store, lifecycle.open_run, opening)
        self._active = opened.active_us / 1_000_000
        self.part, self.hash_key = opened.part, opened.hash_key
        self.former_keys = opened.former_keys
        if opened.planned:
            self.plans.progress = await runtime.look(self.around.store, planning.look, self.ref)
        self.waits.clear()  # that was an earlier part, left and entered again
        self.meter.open(opened.usage, opened.limits, opened.active_us, opened.started_at)
        await self.meter.recall(runtime, self.around.store, self.ref, join=self._join)
        await self._review(runtime)
        return opened

    async def _review(self, runtime: Runtime) -> None:
        """Give back the autonomy whose rule is due by now: no outcome has to come for that."""
        watch, store = self.guard.slos.at_opening(self.workflow), self.around.store
        if watch is None:
            return
        if await runtime.look(store, slos.has_due, self.principal.tenant, watch):
            await runtime.commit(store, slos.restore, self.ref, watch)

    def visit(self, by: str, *, unlimited: bool = False) -> None:
        """Have a person at work in the run's record; the run is not entered."""
        self.ref = RunRef(self.ref.tenant, self.id, f"person:{by}")
        opened = self.around.store.read(lifecycle.visit, self.ref)
        self.part, self.hash_key = opened.part, opened.hash_key
        limits = Limits() if unlimited else opened.limits
        self.meter.open(opened.usage, limits, opened.active_us, opened.started_at)

    def _opening(self, traceparent: str | None) -> Opening:
        who = self.principal
        return Opening(
            ref=self.ref,
            workflow=self.workflow,
            agent=who.agent,
            subject=who.subject,
            limits=self._asked,
            policy_version=self.around.policy_version,
            trace=traceparent,
            join=self._join,
            data={
                "workflow": self.workflow,
                "agent": who.agent,
                "agent_version": who.version,
                "scopes": None if who.scopes is None else sorted(who.scopes),
                **({} if who.model is None else {"agent_model": who.model}),
                "runtime": self.host.name,
                "policy": self.around.policy_version,
                "routing": dict(self.around.routing),
                **decision_costs(self.guard.settings.costs),
            },
        )

    def _activate(self, span: trace.Span, opened: Opened) -> None:
        telemetry.resumed(span, opened.part, opened.earlier_trace)
        here = otel_context.get_current()
        context = trace.set_span_in_context(span, here) if self.around.traced else here
        token = otel_context.attach(context)
        self._tokens.append((_RUN.set(self), token, span))
        self._entered = time.monotonic()

    async def _leave(self, runtime: Runtime, error: BaseException | None) -> None:
        """Close the run, then end its span: only the store knows of questions still open."""
        span = self._deactivate()
        self.outcome, self.verdicts = None, ()
        try:
            await self._close(runtime, error)
        except BaseException as failure:
            if self.outcome is None:
                self.outcome = run_outcome("failed", kind_of(failure))
            self._end_part(span, error or failure)
            raise
        self._end_part(span, error)
        runtime.check_cancelled()

    def _end_part(self, span: trace.Span, error: BaseException | None) -> None:
        seconds = self._active + time.monotonic() - self._entered
        telemetry.end_workflow(span, self, self.outcome, error, seconds)

    def _deactivate(self) -> trace.Span:
        mine, theirs, span = self._tokens.pop()
        # A stream closed from another context cannot reset what it set there; that context ends
        # with the stream.
        with contextlib.suppress(ValueError):
            _RUN.reset(mine)
            otel_context.detach(theirs)
        return span

    def _ending(self, error: BaseException | None) -> tuple[str, str | None, str | None]:
        """Return how the run stands when it is left this way, why, and of what kind that is."""
        if error is None:
            return ("waiting" if any(self.waits.values()) else "succeeded"), None, None
        if isinstance(error, ApprovalRequired):
            return "waiting", None, None
        if isinstance(error, FellBack) and error.ending == "ask" and error.run_id == self.id:
            return "waiting", None, None
        if isinstance(error, GuardError):
            return "failed", self.redactor.scrub(f"{error.kind}: {error.message}"), error.kind
        if self.hosts.are_steered_by(error):
            return "waiting", None, None
        kind = type(error).__name__
        return "failed", self.redactor.scrub(f"{kind}: {error}")[:1000], kind

    async def _close(self, runtime: Runtime, error: BaseException | None) -> None:
        """Write the end of this part, and remember how the run came out, as the store says."""
        status, why, kind = self._ending(error)
        if self._join and status == "succeeded" and not self._finish:
            await self.flush(runtime)
            return
        with enter(self):  # what verifiers ask and spend is the run's
            no = await refuted(runtime, self) if self.checks and status == "succeeded" else None
        if no is not None:
            status, why, kind = self._ending(no)
        taken = self.meter.drain()
        try:
            closed = await self.commit(
                runtime, taken, lifecycle.close_run, self.ref, status, why, taken, kind,
                self.guard.slos.of_workflows.get(self.workflow),
            )  # fmt: skip
        except GuardError as failure:
            if error is None:
                raise
            error.add_note(
                f"agentguard could not write the end of run {self.id}: {failure.message}"
            )
            self.outcome = run_outcome(status, kind)
            return
        self.meter.synced(closed.usage, taken)
        self.outcome = closed.outcome
        if no is not None:
            raise no

    # Commits.

    async def commit(
        self, runtime: Runtime, taken: Pending, verb: Callable[..., T], *args: Any
    ) -> T:
        """Run one verb that also writes the waiting events *taken*; keep those if it fails."""
        return await self.meter.commit(runtime, self.around.store, taken, verb, *args)

    async def flush(self, runtime: Runtime) -> None:
        """Write the events that wait, if there are any."""
        taken = self.meter.drain()
        if not taken.drafts:
            return
        usage = await self.commit(runtime, taken, lifecycle.flush, self.ref, taken)
        self.meter.synced(usage, taken)

    def check_switches(self, tool: str) -> None:
        """Let a plain read see, within a second, that it was stopped; writes see it at once.

        Raises:
            RunHalted: the run was cancelled, or a kill switch stands over this call.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._switches = self.around.store.read(lifecycle.stops, self.ref, self.principal.agent)
            self._looked = now
        reason = self._switches.get("") or self._switches.get(tool)
        if reason is not None:
            raise RunHalted(reason)

    def redact_call(self, tool_name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return a model's tool call arguments with that tool's sensitive ones hidden."""
        plain = jsonable(dict(args), tool_name)
        return self.redactor.hide(self.around.sensitive_of(tool_name), plain)

    def fallback_here(self) -> Any:
        """Return the run's own fallback, unless a call around has declared another."""
        call = CALL.get()
        while call is not None:
            if call.run_id == self.id and call.tool.fallback is not None:
                return None
            call = call.outer
        return self.fallback

    async def _model_ended(
        self, runtime: Runtime, model: str, refusal: GuardError, *, is_async: bool
    ) -> GuardError:
        fallback, told = self.fallback_here(), refusal
        if fallback is not None:
            told = await fallback.end_model(runtime, self, model, refusal, is_async=is_async)
        telemetry.model_refused(self, told)
        return told

    def _shown(self, refusal: GuardError) -> BaseException:
        return self.host.failure(refusal)


def kind_of(error: BaseException) -> str:
    """Return the kind of one of our errors, or the name of another's class."""
    return error.kind if isinstance(error, GuardError) else type(error).__name__


def new_run_id() -> str:
    """Return a fresh run id."""
    return f"run_{uuid.uuid4().hex[:16]}"


@contextlib.contextmanager
def enter(run: Run) -> Generator[None]:
    """Make *run* the one that `current_run` returns; nothing is opened or closed."""
    with setting(_RUN, run):
        yield


@contextlib.contextmanager
def executing(call: Call) -> Generator[None]:
    """Make *call* the one that `current_run().call` returns."""
    with setting(CALL, call):
        yield
