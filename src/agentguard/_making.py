"""One safe ending, made once: written down, asked, or sent where nobody takes it back.

What is sent is an effect of its own, as a tool's is: begun on record, then sent, then settled in the
transaction that closes the run's write path.
"""

from __future__ import annotations

import inspect
import os
import time
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from ._apart import write_apart
from ._contexts import setting
from ._runtime import Outcome, outcome_of
from .canonical import keyed_hash
from .classify import http_errors
from .errors import GuardError
from .ledger import endings
from .ledger.endings import Begun, Done, End, Unknown, Wish
from .model import EffectState, Ending, NoEffect
from .tickets import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._runtime import Runtime
    from .run import Run

_TRIES = 3
_PATIENCE = 30.0
"""Seconds to wait for another caller who is about to end the same run."""
ENDING: ContextVar[bool] = ContextVar("agentguard_ending", default=False)
"""Whether a fallback of the user's own is being executed."""


class Making:
    """Makes one ending, or finds the one that somebody else has made."""

    def __init__(
        self, fallback: Any, runtime: Runtime, run: Run, error: GuardError,
        told: Mapping[str, Any], *, is_async: bool,
    ) -> None:  # fmt: skip
        self.fallback, self.runtime, self.run = fallback, runtime, run
        self.error, self.told, self.is_async = error, told, is_async
        self.port: Any = run.guard.tickets if fallback.to == "ticket" else None
        self.claim_id, self.key = os.urandom(8).hex(), ""

    async def made(self) -> Ending:
        """Return the ending of the run, made now or by whoever came first."""
        kind = self.fallback.kind
        if self.fallback.to == "draft":
            return await self._conclude(End(kind))
        if self.fallback.to == "ask":
            return await self._conclude(self._question())
        if inspect.iscoroutinefunction(self.fallback.to) and not self.is_async:
            why = f"{kind} is async and {self.told['tool']} is not"
            return await self._conclude(End(kind).as_draft(why))
        try:
            return await self._sent(kind)
        except GuardError:
            raise
        except BaseException:
            write_apart(
                self.run.around.store, endings.abandon, self._wish(), self.key, self.is_async
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
        return f"{self.told['tool']} was given up ({self.error.kind}). What should be done instead?"

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
        with setting(ENDING, True):
            return await self._called(lambda: to(dict(arguments or {}), self.error))

    async def _called(self, work: Callable[[], Any]) -> Outcome:
        """Call what is not ours; on an event loop nobody waits for it."""
        if not self.is_async:
            return outcome_of(work)

        async def body() -> Any:
            from asyncio import to_thread

            if self.port is None and inspect.iscoroutinefunction(self.fallback.to):
                return await work()
            return await to_thread(work)

        return await self.runtime.invoke(body, None)
