"""The fallback room: how a run ends safely when a call cannot be made, and that it ends then."""

from __future__ import annotations

import inspect
import os
import time
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from . import errors
from ._apart import write_apart
from ._contexts import setting
from ._decide import shown
from ._meter import OPEN
from ._runtime import Outcome, outcome_of
from .canonical import jsonable, keyed_hash
from .classify import http_errors
from .declaration import declare
from .errors import BudgetExceeded, ConfigurationError, ContractViolation, FellBack, GuardError
from .ledger import endings
from .ledger.endings import Begun, Done, End, Unknown, Wish
from .model import EffectState, Ending, NoEffect, moment
from .tickets import Ticket
from .tool import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

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
_TRIES = 3
_PATIENCE = 30.0
"""Seconds to wait for another caller who is about to end the same run."""
_ENDING: ContextVar[bool] = ContextVar("agentguard_ending", default=False)
"""Whether a fallback of the user's own is being executed."""


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
        inside = _ENDING.get() or OPEN.get() not in (None, runtime)
        if error.kind not in self.on or inside or _ended_elsewhere(error, run):
            return error
        told = _told(run, tool, error, call, given)
        try:
            ending = await _Making(self, runtime, run, tool, error, told).made()
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
    return cast("dict[str, Any]", run.redactor.scrub({
        "run_id": run.id, "tenant": run.principal.tenant, "workflow": run.workflow,
        "tool": tool.name, "arguments": arguments, "because": error.kind,
        "message": error.message[:500], "step": _step(error, call),
        "effect_id": call.idempotency_key or None if call else None,
        "agent": run.principal.agent, "on_behalf_of": run.principal.subject,
        "at": at.isoformat() if at else None,
    }))  # fmt: skip


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


class _Making:
    """Makes one ending."""

    def __init__(
        self, fallback: Fallback, runtime: Runtime, run: Run, tool: Tool, error: GuardError,
        told: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.fallback, self.runtime, self.run, self.tool = fallback, runtime, run, tool
        self.error, self.told = error, told
        self.port: Any = run.guard.tickets if fallback.to == "ticket" else None
        self.claim_id, self.key = os.urandom(8).hex(), ""

    async def made(self) -> Ending:
        """Return the ending of the run, made now or by whoever came first."""
        kind = self.fallback.kind
        if self.fallback.to == "draft":
            return await self._conclude(End(kind))
        if self.fallback.to == "ask":
            return await self._conclude(self._question())
        if inspect.iscoroutinefunction(self.fallback.to) and not self.tool.is_async:
            why = f"{kind} is async and {self.tool.name} is not"
            return await self._conclude(End(kind).as_draft(why))
        try:
            return await self._sent(kind)
        except GuardError:
            raise
        except BaseException:
            write_apart(
                self.run.around.store, endings.abandon, self._wish(), self.key, self.tool.is_async
            )
            raise

    def _wish(self, **more: Any) -> Wish:
        repeatable = bool(getattr(self.port, "idempotent", False))
        return Wish(
            self.run.ref, self.fallback.kind, self.told, self.claim_id, repeatable, **more
        )  # fmt: skip

    async def _commit(self, verb: Callable[..., Any], *args: Any) -> Any:
        taken = self.run.meter.drain()
        answer, usage = await self.run.commit(
            self.runtime, taken, verb, self._wish(pending=taken), *args
        )
        self.run.meter.synced(usage, taken)
        return answer

    async def _conclude(self, end: End) -> Ending:
        return cast("Ending", await self._commit(endings.conclude, end))

    def _question(self) -> End:
        asked = self.fallback.question
        if asked is None or isinstance(asked, str):
            return End("ask", text=asked or self._plain_question())
        text, broken = outcome_of(lambda: asked(dict(self.told["arguments"] or {}), self.error))
        if broken is not None and not isinstance(broken, Exception):
            raise broken
        return End("ask", text=self._scrubbed(self._plain_question() if broken else str(text)))

    def _plain_question(self) -> str:
        return f"{self.tool.name} was given up ({self.error.kind}). What should be done instead?"

    def _scrubbed(self, text: str) -> str:
        return cast("str", self.run.redactor.scrub(text)[:10_000])

    # Endings that act on the world.

    async def _sent(self, kind: str) -> Ending:
        answer = await self._begun()
        if isinstance(answer, Ending):
            return answer
        if isinstance(answer, Begun):
            self.key = answer.key
            return await self._conclude(await self._send(kind, answer))
        if isinstance(answer, Done):
            gone = End(kind, answer.reference or "")
            ruled = gone if answer.reference is not None else gone.as_draft("it was ruled to fail")
            return await self._conclude(ruled)
        if isinstance(answer, Unknown):
            return await self._conclude(await self._looked_up(kind, answer))
        why = answer.message if isinstance(answer, GuardError) else "another caller is at it still"
        return await self._conclude(End(kind).as_draft(why))

    async def _begun(self) -> Any:
        """Begin, once nobody else is about to end this run."""
        until, polls = time.monotonic() + _PATIENCE, 0
        answer = await self._commit(endings.begin)
        while isinstance(answer, endings.Underway) and time.monotonic() < until:
            polls += 1
            await self.runtime.sleep(min(0.001 * 2**polls, 0.1))
            answer = await self._commit(endings.begin)
        return answer

    async def _send(self, kind: str, begun: Begun) -> End:
        tries = _TRIES if getattr(self.port, "idempotent", False) else 1
        end, why = End(kind, key=begun.key, fence=begun.fence, told=begun.told), ""
        for number in range(tries):
            await self.runtime.sleep(0.1 * number)
            said, error = await self._invoke(begun)
            if error is None:
                return self._as_sent(end, said)
            if not isinstance(error, Exception):
                raise error
            failure = http_errors(error)
            why = self._scrubbed(f"{type(error).__name__}: {error}"[:500])
            if isinstance(error, NoEffect) or failure.no_effect:
                return end.as_draft(why, EffectState.FAILED_FINAL)
        return await self._unanswered(end, why)

    def _as_sent(self, end: End, said: Any) -> End:
        if self.port is not None:
            return replace(end, reference=self._scrubbed(str(said)))
        if isinstance(said, Ending):
            return replace(end, reference=said.reference, text=self._scrubbed(said.text))
        return replace(end, text=self._scrubbed("" if said is None else str(said)))

    async def _unanswered(self, end: End, why: str) -> End:
        """Nobody knows whether it was sent: look, or leave the doubt."""
        there = await self._find(end.key)
        return replace(end, reference=there) if there else end.as_draft(why, EffectState.IN_DOUBT)

    async def _looked_up(self, kind: str, unknown: Unknown) -> End:
        there = await self._find(unknown.key)
        if there:
            await self._commit(endings.found, unknown, there)
            return End(kind, there, key=unknown.key, fence=unknown.fence, told=unknown.told)
        why = f"whether it was sent before is not known; see agentguard effects show {unknown.key}"
        return End(kind).as_draft(why)

    async def _find(self, key: str) -> str | None:
        find = getattr(self.port, "find", None)
        if find is None:
            return None
        said, error = await self._called(lambda: find(self._outside(key)))
        if error is not None and not isinstance(error, Exception):
            raise error
        return str(said) if said else None  # one that cannot look has found nothing

    def _outside(self, key: str) -> str:
        """Return the backend's key: other tenants, and other stores, have runs of the same name."""
        return f"{key}/{keyed_hash(self.run.hash_key, key.encode())[:16]}"

    async def _invoke(self, begun: Begun) -> Outcome:
        port = self.port
        if port is not None:
            told: dict[str, Any] = {**begun.told, "key": self._outside(begun.key)}
            told["step"] = told["step"] or None
            ticket = Ticket(**told)
            return await self._called(lambda: port.file(ticket))
        to, arguments = cast("Callable[..., Any]", self.fallback.to), begun.told["arguments"]
        with setting(_ENDING, True):
            return await self._called(lambda: to(dict(arguments or {}), self.error))

    async def _called(self, work: Callable[[], Any]) -> Outcome:
        """Call what is not ours; on an event loop nobody waits for it."""
        if not self.tool.is_async:
            return outcome_of(work)

        async def body() -> Any:
            from asyncio import to_thread

            if self.port is None and inspect.iscoroutinefunction(self.fallback.to):
                return await work()
            return await to_thread(work)

        return await self.runtime.invoke(body, None)
