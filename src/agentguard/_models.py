"""Model calls of a run: reserved before they are dispatched, settled with what they used."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .canonical import jsonable
from .ledger import model_calls
from .ledger.values import Refused
from .model import nanos

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from decimal import Decimal

    from ._meter import Meter
    from ._runtime import Runtime
    from .ledger.values import Pending, RunRef
    from .protocols import Store
    from .redaction import Redactor


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run needs from its guard.

    Attributes:
        price: model, input tokens and output tokens to US dollars, or None if unknown.
        sensitive_of: a tool's name to the arguments that must not be shown.
        routing: which model does what, for the record.
        traced: whether spans are emitted.
    """

    store: Store
    policy_version: str
    price: Callable[[str, int, int], Decimal | None]
    sensitive_of: Callable[[str], frozenset[str]]
    routing: Mapping[str, str]
    traced: bool


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A model call that was let through and has to be settled."""

    step: int
    model: str
    hold: int
    started: int
    messages: Any
    call_id: str | None


class ModelCalls:
    """Starts and settles the model calls of one run."""

    def __init__(
        self, ref: RunRef, agent: str, around: Surroundings, meter: Meter, redactor: Redactor
    ) -> None:
        self._ref, self._agent, self._around = ref, agent, around
        self._meter, self._redactor = meter, redactor

    async def _commit(self, runtime: Runtime, taken: Pending, verb: Any, *args: Any) -> Any:
        return await self._meter.commit(runtime, self._around.store, taken, verb, *args)

    async def start(
        self, runtime: Runtime, model: str, messages: Any, call_id: str | None, most: int | None
    ) -> ModelCall:
        """Reserve a model call with its worst case, or raise the refusal."""
        asked = len(str(messages)) // 4 + 1  # about four characters a token
        worst = self._around.price(model, asked, most or 0)
        hold = 0 if worst is None else nanos(worst)
        taken = self._meter.drain(1, 0)
        start = model_calls.ModelStart(
            self._ref, self._agent, model, self._meter.limits, hold, taken
        )
        try:
            answer, usage = await self._commit(runtime, taken, model_calls.begin_model, start)
        except BaseException:
            self._meter.expect(-1, 0)
            raise
        self._meter.synced(usage, taken, steps=1)
        if isinstance(answer, Refused):
            raise answer.error
        return ModelCall(answer.step, model, hold, time.monotonic_ns(), messages, call_id)

    async def finish(
        self, runtime: Runtime, call: ModelCall, output: Any, used: tuple[int, int, int],
        error: BaseException | None,
    ) -> None:  # fmt: skip
        """Settle a model call with its tokens (input, output, cached) and its answer or error."""
        price = self._around.price(call.model, used[0], used[1])
        cost = None if price is None else nanos(price)
        taken = self._meter.drain()
        data = {
            "model": call.model,
            "call_id": call.call_id,
            "input_tokens": used[0],
            "output_tokens": used[1],
            "cached_tokens": used[2],
            "cost_nanos": cost,
            "duration_us": (time.monotonic_ns() - call.started) // 1000,
            "error": None if error is None else type(error).__name__,
        }
        content = {"input": jsonable(call.messages), "output": jsonable(output)}
        end = model_calls.ModelEnd(
            self._ref, call.step, call.hold, cost, used[0], used[1], data,
            self._redactor.scrub(content), taken,
        )  # fmt: skip
        usage = await self._commit(runtime, taken, model_calls.end_model, end)
        self._meter.synced(usage, taken)
