"""What a call does about an effect in doubt: it asks the tool's hook, and guesses nothing."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ._attempt import End, judge
from ._persist import error_of
from ._runtime import outcome_of
from .errors import DecisionRefused, EffectInDoubt, GuardError
from .ledger import settling
from .ledger.compensating import REFUTED
from .model import EffectState, Happened, NotHappened
from .telemetry import told

if TYPE_CHECKING:
    from ._runtime import Runtime
    from .ledger.values import Doubt, Watch
    from .model import Effect
    from .run import Run
    from .tool import Call

_HOOK_SECONDS = 30.0
"""Seconds that an async reconcile hook may take."""


class Doubts:
    """Asks what became of one call's effect, and writes the answer down."""

    def __init__(self, runtime: Runtime, run: Run, call: Call) -> None:
        self.runtime, self.run, self.call = runtime, run, call
        self.tool, self.store = call.tool, run.around.store

    async def reconcile(self, doubt: Doubt) -> None:
        """Ask the tool's hook what happened to an effect in doubt, and write its answer down."""
        effect, said = doubt.effect, await self._ask_hook()
        ruled: End | Effect | GuardError | None
        if isinstance(said, Happened):
            ruled = await self._confirm(said, effect.fence)
        elif isinstance(said, NotHappened) and not doubt.may_act:
            ruled = await self._rule("not_happened", effect.fence, End(EffectState.IN_DOUBT))
        else:
            ruled = None
        if ruled is None or isinstance(ruled, DecisionRefused):
            raise self.error(effect.doubt_reason or "unknown")

    async def lose(self, effect: Effect, watch: Watch | None) -> None:
        """Have it written down, and counted, that the owner of the effect is gone."""
        if watch is not None:
            place = (self.run.ref, effect.id, effect.fence)
            await self.runtime.commit(self.store, settling.lose, *place, watch)

    async def _ask_hook(self) -> Any:
        if self.tool.on_doubt != "reconcile" or self.tool.reconcile is None:
            return None
        hook, call = self.tool.reconcile, self.call
        if inspect.iscoroutinefunction(hook):
            said, error = await self.runtime.invoke(lambda: hook(call), _HOOK_SECONDS)
        else:
            said, error = outcome_of(lambda: hook(call))
        if error is not None and not isinstance(error, Exception):
            raise error
        return said  # a hook that fails has found out nothing

    async def _confirm(self, said: Happened, fence: int) -> End | GuardError:
        """Take the hook's yes as the tool's answer: checked, verified and kept like one."""
        end = await judge(self.run, self.call, (said.result, None))
        if end.error is not None and end.result_state != REFUTED:
            raise end.error  # the doubt stays: it happened, but not as it was meant
        ruled = await self._rule("happened", fence, end)
        if isinstance(ruled, GuardError):
            return ruled
        told(self.call).verdicts.extend(end.verdicts)
        return end

    async def _rule(self, ruling: str, fence: int, end: End) -> Effect | GuardError:
        return await self.runtime.commit(
            self.store, settling.resolve, self.run.principal.tenant, self.call.idempotency_key,
            ruling, "reconcile", "", end.kept, fence, tuple(end.verdicts),
            error_of(self.run.redactor, end) if end.result_state == REFUTED else None,
        )  # fmt: skip

    def error(self, reason: str) -> EffectInDoubt:
        """Return what the caller is told while nobody knows."""
        return EffectInDoubt(
            f"{self.tool.name}: it is not known whether this happened ({reason}); see agentguard effects"
            f" show {self.call.idempotency_key}",
            effect_id=self.call.idempotency_key,
            reason=reason,
        )

    async def look_at_once(self, end: End) -> None:
        """Ask the hook right away; only a yes counts, since a slow backend may still be working."""
        if end.doubt in ("verifier_failed", "output_contract") or not end.body_ended:
            return
        said = await self._ask_hook()
        if isinstance(said, Happened):
            found = await self._confirm(said, self.call.fence)
            if isinstance(found, End):
                end.state, end.value, end.error = found.state, found.value, found.error
                end.result_state = found.result_state
