"""A run's model calls under the runtime's own ids: none is left unsettled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from ._models import ModelCall
    from .run import Run


class ModelReports:
    """Takes a runtime's reports of model calls; enter it around whatever makes them.

    What ended without a word, as a cancelled call does, is settled when it is left.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._open: dict[Hashable, ModelCall] = {}

    def started(self, call: Hashable, **asked: Any) -> None:
        """Reserve the model call that the runtime names *call*; *asked* as in `model_started`."""
        found = self._open[call] = self._run.models.ask(**asked)
        self._run.models.start(found)

    async def astarted(self, call: Hashable, **asked: Any) -> None:
        """Like `started`, on an event loop."""
        found = self._open[call] = self._run.models.ask(**asked)
        await self._run.models.astart(found)

    def finished(self, call: Hashable, **answered: Any) -> None:
        """Settle *call*, *answered* as in `model_finished`; one that was refused is none."""
        if (found := self._open.get(call)) is not None:
            self._run.model_finished(found, **answered)
            self._open.pop(call, None)

    async def afinished(self, call: Hashable, **answered: Any) -> None:
        """Like `finished`, on an event loop."""
        if (found := self._open.get(call)) is not None:
            await self._run.amodel_finished(found, **answered)
            self._open.pop(call, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for call in self._left():
            self._run.model_finished(call, error=_CutOff())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for call in self._left():
            await self._run.amodel_finished(call, error=_CutOff())

    def _left(self) -> Iterator[ModelCall]:
        while self._open:
            yield self._open.popitem()[1]


class _CutOff(BaseException):
    """The model call neither returned nor failed; whether it was charged is not known."""
