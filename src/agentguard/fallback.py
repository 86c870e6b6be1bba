"""The fallback room: how a run ends safely when a call cannot be made, and that it ends then."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from . import errors
from ._decide import shown
from ._making import ENDING, Making
from ._meter import OPEN
from .canonical import jsonable
from .declaration import declare
from .errors import BudgetExceeded, ConfigurationError, ContractViolation, FellBack, GuardError
from .model import Ending, moment
from .tool import Stage

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection

    from ._runtime import Runtime
    from .config import Settings
    from .declaration import F
    from .run import Run
    from .tool import Call, Tool


TRIGGERS = frozenset({
    "tool_timeout", "effect_in_doubt", "verification_failed", "verifier_unavailable",
    "circuit_open", "budget_exceeded",
    "loop_detected", "permission_denied", "forbidden_action", "plan_violation",
})  # fmt: skip
"""Kinds of errors that lead to an ending, if nothing else is said."""
_NEVER = frozenset({
    "approval_required", "action_drafted", "configuration_error", "decision_refused", "fell_back",
    "guard_error", "run_halted", "store_unavailable",
})  # fmt: skip
"""Kinds that are a wait or an end already, or after which nothing can be written."""
_READY_MADE = ("draft", "ticket", "ask")


def falls_back_to(
    to: str | Callable[..., Any], /, *, on: Collection[str] = TRIGGERS,
    question: str | Callable[..., str] | None = None,
) -> Callable[[F], F]:  # fmt: skip
    """End the run safely when this tool's call cannot be made; nothing is written in it afterwards.

    Args:
        to: `draft` writes the call down, `ticket` files it where `Guard(tickets=…)` says, `ask` asks
            one question and waits; a callable gets (arguments, error), and what it returns is
            recorded.
        on: the kinds of errors that lead to it.
        question: for `ask`: what is asked, or a callable over (arguments, error).

    Raises:
        ConfigurationError: there is no such ending, or no such kind of error.
    """
    fallback = Fallback(to, frozenset([on] if isinstance(on, str) else on), question)
    return lambda function: declare(function, fallback)


@dataclass(frozen=True)
class Fallback:
    """What `falls_back_to` declares; also for a whole run, as `guard.run(falls_back_to=…)`."""

    to: str | Callable[..., Any]
    on: frozenset[str] = TRIGGERS
    question: str | Callable[..., str] | None = None

    def __post_init__(self) -> None:
        if not callable(self.to) and self.to not in _READY_MADE:
            raise ConfigurationError(
                f"falls_back_to: {self.to!r} is no ending; there are {', '.join(_READY_MADE)}, or give"
                " a callable(arguments, error)"
            )
        if self.question is not None and self.to != "ask":
            raise ConfigurationError('falls_back_to: only "ask" has a question=')
        _check_kinds(self.on)

    @property
    def stage(self) -> Stage:
        """After everything else has failed."""
        return Stage.FALLBACK

    @property
    def kind(self) -> str:
        """The name of the ending in the record."""
        if isinstance(self.to, str):
            return self.to
        name = str(getattr(self.to, "__name__", "fallback"))
        return f"own {name}" if name in _READY_MADE else name

    def bind(self, tool: Tool, _settings: Settings) -> None:
        """Write the ending on the sheet."""
        if inspect.iscoroutinefunction(self.to) and not tool.is_async:
            raise ConfigurationError(f"{tool.name} is sync, so its fallback must be sync")
        tool.fallback = self

    def check(self, who: str, tickets: Any) -> None:
        """Refuse a ticket where there is nowhere to file one.

        Raises:
            ConfigurationError: with the sentence that mends it.
        """
        if self.to == "ticket" and tickets is None:
            raise ConfigurationError(
                f"{who} falls back to a ticket, but this guard has nowhere to file one: say"
                " Guard(tickets=FileTickets('tickets.jsonl')), or another of agentguard.tickets"
            )

    async def end(
        self, runtime: Runtime, run: Run, tool: Tool, error: GuardError, call: Call | None,
        given: tuple[Any, ...] = (),
    ) -> GuardError:  # fmt: skip
        """End the run because of *error*; return what its caller is told.

        Args:
            runtime: of the call.
            run: the run that ends.
            tool: whose call led to it.
            error: why; another kind of error than those declared is returned as it is.
            call: the call, if it came so far as to be one.
            given: otherwise the instance, arguments and keywords it was made with.
        """
        inside = ENDING.get() or OPEN.get() not in (None, runtime)
        if error.kind not in self.on or inside or _ended_elsewhere(error, run):
            return error
        told = _told(run, tool, error, call, given)
        return await self._ended(runtime, run, error, told, is_async=tool.is_async)

    async def end_model(
        self, runtime: Runtime, run: Run, model: str, error: GuardError, *, is_async: bool
    ) -> GuardError:
        """End the run because a call of *model* was refused; return what its caller is told."""
        if error.kind not in self.on or ENDING.get() or OPEN.get() is not None:
            return error
        told = _facts(run, model, error, moment(run.around.store.clock.now()))
        return await self._ended(runtime, run, error, {**told, "step": 0}, is_async=is_async)

    async def _ended(
        self, runtime: Runtime, run: Run, error: GuardError, told: dict[str, Any], *, is_async: bool
    ) -> GuardError:
        try:
            ending = await Making(self, runtime, run, error, told, is_async=is_async).made()
        except GuardError as failure:  # the ending could not be written, so nothing else can be
            failure.__cause__ = error
            return failure
        fell = FellBack(
            _sentence(ending, run.id), ending=ending.kind, reference=ending.reference,
            cause_kind=ending.cause, run_id=run.id, step=error.step or ending.step,
        )  # fmt: skip
        fell.__cause__ = error
        return fell


def as_fallback(given: Any) -> Fallback | None:
    """Return what a run, or an option, says as a fallback."""
    return given if given is None or isinstance(given, Fallback) else Fallback(given)


def _check_kinds(on: Collection[str]) -> None:
    known = {cls.kind for cls in vars(errors).values() if _is_error(cls)} - _NEVER
    for kind in on:
        if kind in _NEVER:
            raise ConfigurationError(
                f"falls_back_to: nothing can fall back on {kind}: it waits or ends by itself"
            )
        if kind not in known:
            raise ConfigurationError(
                f"falls_back_to: there is no kind of error {kind!r}; there are"
                f" {', '.join(sorted(known))}"
            )


def _is_error(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, GuardError)


def _ended_elsewhere(error: BaseException, run: Run) -> bool:
    """An ending of a run inside has acted already; it is not this run's to act once more."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, FellBack) and cause.run_id != run.id:
            return True
        cause = cause.__cause__
    return False


def _told(
    run: Run, tool: Tool, error: GuardError, call: Call | None, given: tuple[Any, ...]
) -> dict[str, Any]:
    """Return what a draft or a ticket says of the call, as JSON types and without secrets."""
    arguments = _arguments(run, tool, given) if call is None else shown(run, call)
    at = moment(call.at if call else run.around.store.clock.now())
    told = {
        **_facts(run, tool.name, error, at), "arguments": arguments, "step": _step(error, call),
        "effect_id": call.idempotency_key or None if call else None,
    }  # fmt: skip
    return cast("dict[str, Any]", run.redactor.scrub(told))


def _facts(run: Run, what: str, error: GuardError, at: dt.datetime | None) -> dict[str, Any]:
    return {
        "run_id": run.id, "tenant": run.principal.tenant, "workflow": run.workflow, "tool": what,
        "arguments": None, "because": error.kind, "message": run.redactor.scrub(error.message[:500]),
        "effect_id": None, "agent": run.principal.agent, "on_behalf_of": run.principal.subject,
        "at": at.isoformat() if at else None,
    }  # fmt: skip


def _step(error: GuardError, call: Call | None) -> int | None:
    """Return the step of the call; 0 if it has none of its own, None if it is about to get one."""
    if isinstance(error, BudgetExceeded):
        return 0
    return error.step or (call.step if call else None)


def _arguments(run: Run, tool: Tool, given: tuple[Any, ...]) -> dict[str, Any] | None:
    """Read the arguments of a call that was refused before that."""
    try:
        values, _ = tool.arguments.read(*given)
        plain = {name: jsonable(value, name) for name, value in values.items()}
    except ContractViolation:
        return None
    return run.redactor.hide(tool.sensitive, plain)


def _sentence(ending: Ending, run_id: str) -> str:
    told = {
        "draft": f"the call is written down as a draft ({ending.reference})",
        "ticket": f"the ticket {ending.reference} was filed",
        "ask": "one question waits for a person",
    }.get(ending.kind, f"{ending.kind} was done instead")
    return (
        f"{ending.tool} was given up ({ending.cause}): {told}; nothing more is written in run"
        f" {run_id}, see agentguard runs show {run_id}"
    )
