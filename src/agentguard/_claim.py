"""One start on record whose end is not: who is interrupted there says so at once.

A signal handler can raise anywhere (Ctrl-C, a task queue's time limit), also between the commit of
a start and that of its end. The process lives on then, so that nothing proves its owner dead.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from ._apart import keep_trying, write_apart
from ._attempt import End
from .errors import StoreUnavailable
from .ledger import settling
from .ledger.values import Interrupted, Pending
from .model import EffectState

if TYPE_CHECKING:
    from .ledger.values import Settlement, Watch
    from .run import Run
    from .tool import Call


class Claim:
    """What is known of the start that a call has made, or may have made.

    Attributes:
        began: the body may have begun.
        end: how it ended, once that is known.
        owed: a failure that is not counted yet, since it is to be tried again.
    """

    def __init__(self, run: Run, call: Call) -> None:
        self._run, self._call = run, call
        self._id: str | None = None
        self.began = False
        self.end: Settlement | None = None
        self.owed: Settlement | None = None

    def make(self, claim_id: str) -> None:
        """Take note of a start before it is committed: an interrupt may hide that it was."""
        self._id, self.began, self.end = claim_id, False, None

    def owe(self, end: Settlement, *, retries: bool) -> None:
        """A failure counts when it is the call's last; what comes of a retry counts otherwise."""
        if not self.began:
            end.watch = None  # nothing of the tool has failed
        elif end.watch is not None and (retries or self._is_apart(end, end.watch)):
            self.owed, end.watch = replace(end, pending=Pending(), content=None), None

    def _is_apart(self, end: Settlement, watch: Watch) -> bool:
        """Who demotes waits for all starts: not inside the transaction of one, which others wait for."""
        same = self._call.tool.same_database
        return same and watch.demotes and end.state is not EffectState.SUCCEEDED

    def count_owed(self) -> None:
        """Count the failure that was to be tried again, now that nothing comes of that."""
        owed, self.owed = self.owed, None
        if owed is not None:
            with contextlib.suppress(StoreUnavailable):  # what cannot be written is not counted
                usage = self._run.around.store.transact(settling.note_failure, owed)
                self._run.meter.synced(usage, Pending())

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
            watch=self._run.guard.slos.of_tools.get(self._call.tool.name),
        )
