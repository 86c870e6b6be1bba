"""One start on record whose end is not: who is interrupted there says so at once.

A signal handler can raise anywhere (Ctrl-C, a task queue's time limit), also between the commit of
a start and that of its end. The process lives on then, so that nothing proves its owner dead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._apart import keep_trying, write_apart
from ._attempt import End
from .ledger import settling
from .ledger.values import Interrupted, Pending
from .model import EffectState

if TYPE_CHECKING:
    from .ledger.values import Settlement
    from .run import Run
    from .tool import Call


class Claim:
    """What is known of the start that a call has made, or may have made.

    Attributes:
        began: the body may have begun.
        end: how it ended, once that is known.
    """

    def __init__(self, run: Run, call: Call) -> None:
        self._run, self._call = run, call
        self._id: str | None = None
        self.began = False
        self.end: Settlement | None = None

    def make(self, claim_id: str) -> None:
        """Take note of a start before it is committed: an interrupt may hide that it was."""
        self._id, self.began, self.end = claim_id, False, None

    def drop(self) -> None:
        """Nothing was started, or its end is written or being written."""
        self._id = None

    def not_begun(self, error: BaseException) -> End:
        """Return the end of a start whose body will not begin."""
        if self._follows_a_doubt():
            return End(EffectState.IN_DOUBT, error=error, doubt="cancelled")
        return End(EffectState.FAILED_RETRYABLE, error=error)

    def _follows_a_doubt(self) -> bool:
        """An earlier body under this key may have acted, and this start has taken its doubt over."""
        return self._call.tool.on_doubt == "retry_same_key"

    def abandon(self) -> None:
        """Write down what is known of the claim, if there is one, and wait for that.

        Nothing here waits on a runtime: the interrupt may have ended it.
        """
        if self._id is None:
            return
        usage = write_apart(self._run.around.store, settling.abandon, self._lost(self._id))
        if usage is not None:
            self._run.meter.synced(usage, Pending())

    def leave(self) -> None:
        """Have it written down, as soon as the store answers, that the body never began.

        It is not known whether the start was: its commit got no answer.
        """
        if self._id is not None:
            keep_trying(self._run.around.store, settling.abandon, self._lost(self._id))
        self.drop()

    def _lost(self, claim_id: str) -> Interrupted:
        began = self.began or self._follows_a_doubt()
        return Interrupted(
            self._run.ref,
            self._call.idempotency_key,
            claim_id,
            end=self.end,
            began=began,
            may_act=began and self._call.tool.isolation == "thread",
        )
