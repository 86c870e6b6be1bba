"""Exactly once, where it can be: start, body and end in one transaction of the store's database.

The tool writes through the store's own connection. What it wrote and what the record says of it
are committed together or not at all, so no kill leaves a doubt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ._contexts import setting
from ._durable import DurableCall
from ._meter import OPEN
from ._runtime import InlineRuntime, Outcome, outcome_of
from .errors import ConfigurationError, EffectInDoubt, GuardError
from .ledger.compensating import REFUTED
from .ledger.values import Pending, Started
from .model import EffectState

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._attempt import End
    from ._runtime import Transactions
    from .errors import StoreUnavailable
    from .ledger.values import Answer, Intent, Settlement
    from .protocols import OpenTransaction

T = TypeVar("T")


class TogetherRuntime(InlineRuntime):
    """Keeps the transaction of a start open until its end is written into it, too."""

    def __init__(self) -> None:
        self.open: OpenTransaction | None = None

    async def commit(self, store: Transactions, verb: Callable[..., T], *args: Any) -> T:
        """Run one verb; only a start leaves its transaction open."""
        if self.open is None:
            self.open = _opened(store)
        try:
            result = self.open.apply(verb, *args)
            if isinstance(result, tuple) and isinstance(result[0], Started):
                self.open.keep()
                return result
            self.open.commit()
        except BaseException:
            self.give_up()
            raise
        self.open = None
        return result

    async def invoke(self, body: Callable[[], Any], seconds: float | None) -> Outcome:
        """Run the body while the transaction is open."""
        del seconds  # refused where it is declared
        return outcome_of(body)

    def give_up(self) -> None:
        """Undo whatever is open."""
        transaction, self.open = self.open, None
        if transaction is not None:
            transaction.rollback()


def _opened(store: Any) -> OpenTransaction:
    begin = getattr(store, "open", None)
    if begin is None:
        raise ConfigurationError(
            f"{store.url} cannot share its transactions: same_database=True needs a store that can"
        )
    transaction: OpenTransaction = begin()
    return transaction


def _make_certain(end: End) -> None:
    """What was in doubt, or not confirmed, is undone: it is known that nothing happened."""
    if end.state is not EffectState.IN_DOUBT and end.result_state != REFUTED:
        return
    end.state, end.doubt = EffectState.FAILED_RETRYABLE, None
    end.kept = end.result_state = None
    if type(end.error) is EffectInDoubt and end.error.__cause__ is not None:
        end.error = end.error.__cause__
        end.again = isinstance(end.error, Exception) and not isinstance(end.error, GuardError)


class TogetherCall(DurableCall):
    """Drives a call whose tool writes into the database of the store."""

    runtime: TogetherRuntime
    _taken = Pending()

    async def run(self) -> tuple[Any, str]:
        """Return the result and its outcome, or raise what the caller is told."""
        try:
            return await self._run()
        except BaseException:
            if self.runtime.open is not None:
                self.runtime.give_up()
                self._forget_start()
            raise
        finally:
            self.claim.count_owed()

    async def _begin(self, intent: Intent) -> Answer:
        answer = await super()._begin(intent)
        if intent.pending is not None:
            self._taken = intent.pending
        return answer

    async def _execute(self, started: Started) -> End:
        if self.runtime.open is not None:
            self.call.connection = self.runtime.open.connection
        try:
            with setting(OPEN, self.runtime):
                return await super()._execute(started)
        finally:
            self.call.connection = None

    async def _settle(self, end: End, duration_us: int) -> End:
        refuted = end.result_state == REFUTED
        if (refuted or end.state is not EffectState.SUCCEEDED) and self.runtime.open is not None:
            self.runtime.open.undo()
            _make_certain(end)
        return await super()._settle(end, duration_us)

    def _unrecorded(self, end: End, settlement: Settlement, error: StoreUnavailable) -> End:
        """Nothing was committed, neither the effect nor its record; or else both were."""
        del end, settlement
        self._forget_start()
        raise error

    def _forget_start(self) -> None:
        """The start was undone with all else: the events that came with it wait again."""
        self.claim.drop()
        if self._taken.drafts and not self._taken.written:
            self.run_.meter.restore(self._taken)
            self.run_.meter.expect(self._taken.steps, self._taken.tool_calls)
