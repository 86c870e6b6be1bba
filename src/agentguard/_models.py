"""Model calls of a run: reserved before they are dispatched, settled with what they used."""

from __future__ import annotations

import contextlib
import operator
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from . import _metrics
from ._apart import write_apart
from ._names import same_model
from ._runtime import AsyncioRuntime, InlineRuntime, run_inline
from ._verdicts import ASKING
from .canonical import jsonable
from .errors import GuardError, PermissionDenied
from .ledger.model_calls import ModelEnd, ModelStart, ModelState, begin_model, end_model
from .ledger.values import Pending
from .model import dollars, nanos
from .prices import Tokens, price_now
from .prompts import prompt_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping

    from ._meter import Meter
    from ._runtime import Runtime
    from ._verdicts import Asking
    from .ledger.values import RunRef
    from .prices import Price, Prices
    from .prompts import Prompt
    from .protocols import Store
    from .redaction import Redactor


_MOST_TOKENS = 10**12


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run needs from its guard.

    Attributes:
        prices: what models cost, as far as that is known.
        sensitive_of: a tool's name to the arguments that must not be shown.
        routing: which model does what, for the record.
        traced: whether spans are emitted.
    """

    store: Store
    policy_version: str
    prices: Prices
    sensitive_of: Callable[[str], frozenset[str]]
    routing: Mapping[str, str]
    traced: bool


@dataclass(slots=True, eq=False)
class ModelCall:
    """A model call that was let through and has to be settled; a second time changes nothing.

    Attributes:
        verifier: who made it to verify something, if one did; it has proposed nothing.
        prompt: with which prompt it asks, if anybody says so.
    """

    model: str
    hold: int
    messages: Any
    call_id: str | None
    verifier: str | None = None
    prompt: Prompt | None = None
    began: int = field(default_factory=time.monotonic_ns)
    state: ModelState = field(default_factory=ModelState)

    @property
    def is_open(self) -> bool:
        """Whether it is reserved, and not settled yet."""
        return self.state.reserved.durable and not self.state.settled.durable


class ModelCalls:
    """Starts and settles the model calls of one run.

    A call that is interrupted on its way leaves nothing held: whatever was reserved and not
    dispatched is given back, and the record says so.

    Attributes:
        called: the models that were called to propose something, as far as is known.
        seen: the last event of the run up to which the record was read for that.
    """

    def __init__(
        self, ref: RunRef, agent: str, around: Surroundings, meter: Meter, redactor: Redactor,
        failure: Callable[[GuardError], BaseException], ended: Callable[..., Awaitable[GuardError]],
        workflow: str = "",
    ) -> None:  # fmt: skip
        self._ref, self._agent, self._around, self._ended = ref, agent, around, ended
        self._meter, self._redactor, self._failure = meter, redactor, failure
        self._workflow = workflow
        self.called: set[str] = set()
        self.seen = 0

    def ask(
        self, *, model: str, messages: Any, call_id: str | None = None,
        max_output_tokens: int | None = None, prompt: Any = None,
    ) -> ModelCall:  # fmt: skip
        """Return a model call with its worst case; nothing is reserved yet.

        Raises:
            PermissionDenied: a verifier asks a model that has proposed what it verifies.
        """
        asking = ASKING.get()
        if asking is not None:
            self._check_verifier(asking, model)
        asked = len(str(messages)) // 4 + 1  # about four characters a token
        worst = self._price(model, Tokens(asked, max_output_tokens or 0))
        hold = 0 if worst is None else nanos(worst.usd)
        verifier = None if asking is None else asking.verifier
        return ModelCall(model, hold, messages, call_id, verifier, prompt_of(prompt))

    def _price(self, model: str, tokens: Tokens) -> Price | None:
        return price_now(self._around.prices, self._around.store.clock, model, tokens)

    def _check_verifier(self, asking: Asking, model: str) -> None:
        found = next((known for known in asking.proposers if same_model(known, model)), None)
        if found is not None:
            raise self._failure(PermissionDenied(
                f"the verifier {asking.verifier} asks {model}, the model that proposed the call"
                f" ({found}): give it another model"
            ))  # fmt: skip

    def start(self, call: ModelCall) -> None:
        """Reserve *call*, or raise the refusal as the runtime at work wants it."""
        try:
            with self._refusing():
                run_inline(self._reserve(InlineRuntime(), call))
        except GuardError:
            raise
        except BaseException as interrupt:
            self._settle_apart(self._not_dispatched(call, interrupt))
            raise

    async def astart(self, call: ModelCall) -> None:
        """Like `start`, on an event loop."""
        from asyncio import CancelledError

        runtime = AsyncioRuntime()
        try:
            with self._refusing():
                await self._reserve(runtime, call)
            runtime.check_cancelled()
        except GuardError:
            raise
        except CancelledError as cancelled:
            await self._give_back(call, cancelled)
            raise
        except BaseException as interrupt:
            self._settle_apart(self._not_dispatched(call, interrupt))
            raise

    @contextlib.contextmanager
    def _refusing(self) -> Generator[None]:
        """Let a refusal reach whom it concerns, as the runtime at work here has it."""
        try:
            yield
        except GuardError as refusal:
            shown = self._failure(refusal)
            if shown is refusal:
                raise
            raise shown from refusal.__cause__

    async def _reserve(self, runtime: Runtime, call: ModelCall) -> None:
        taken = self._meter.drain(1, 0)
        start = ModelStart(
            self._ref, self._agent, call.model, self._meter.limits, call.hold, taken,
            call.state,
        )  # fmt: skip
        try:
            refused, usage = await self._commit(runtime, taken, begin_model, start)
        except BaseException:
            self._meter.expect(-1, 0)
            raise
        self._meter.synced(usage, taken, steps=1)
        if refused is not None and ASKING.get() is None:
            is_async = isinstance(runtime, AsyncioRuntime)
            raise await self._ended(runtime, call.model, refused.error, is_async=is_async)
        if refused is not None:  # a verifier's: whoever asked it is told that it cannot answer
            raise refused.error
        if call.verifier is None:
            self.called.add(call.model)

    async def _give_back(self, call: ModelCall, cancelled: BaseException) -> None:
        try:
            await self._settle(AsyncioRuntime(), self._not_dispatched(call, cancelled))
        except GuardError as failure:
            cancelled.add_note(f"agentguard could not give back a model call: {failure.message}")

    def finish(
        self, call: ModelCall, output: Any, used: Tokens, error: BaseException | None
    ) -> None:
        """Settle *call* with what it used and its answer or error."""
        run_inline(self._finish(InlineRuntime(), call, output, used, error))

    async def afinish(
        self, call: ModelCall, output: Any, used: Tokens, error: BaseException | None
    ) -> None:
        """Like `finish`, on an event loop."""
        runtime = AsyncioRuntime()
        await self._finish(runtime, call, output, used, error)
        runtime.check_cancelled()

    async def _finish(
        self, runtime: Runtime, call: ModelCall, output: Any, used: Tokens,
        error: BaseException | None,
    ) -> None:  # fmt: skip
        if not call.is_open:
            return
        used, told = _counted(used)
        cost, said = self._cost(call, used, error) if told else (None, {})
        end = self._end(call, cost, used, error, output, **said)
        try:
            await self._settle(runtime, end)
        except GuardError:
            raise
        except BaseException:
            self._settle_apart(end)
            raise

    def _cost(
        self, call: ModelCall, used: Tokens, error: BaseException | None
    ) -> tuple[int | None, dict[str, Any]]:
        """Return what a call cost, None if nobody knows, and who says so.

        It was made: a price list that fails now must not leave it unsettled.
        """
        if not (used.input or used.output) and _was_served(error):
            return None, {}
        try:
            price = self._price(call.model, used)
            cost = None if price is None else nanos(price.usd)
        except Exception as broken:  # noqa: BLE001 - told in the record
            return None, {"price_error": type(broken).__name__}
        if price is None:
            return None, {}
        return cost, {"price_source": price.source, "price_version": price.version}

    def _not_dispatched(self, call: ModelCall, why: BaseException) -> ModelEnd:
        return self._end(call, 0, Tokens(), why, dispatched=False)

    def _end(
        self, call: ModelCall, cost: int | None, used: Tokens,
        error: BaseException | None, output: Any = None, **more: Any,
    ) -> ModelEnd:  # fmt: skip
        data = {
            "model": call.model,
            "call_id": call.call_id,
            "input_tokens": used.input,
            "output_tokens": used.output,
            "cached_tokens": used.cached,
            "cost_nanos": cost,
            "duration_us": (time.monotonic_ns() - call.began) // 1000,
            "error": None if error is None else type(error).__name__,
            **({} if call.verifier is None else {"verifier": call.verifier}),
            **({"cache_write_tokens": used.cache_write} if used.cache_write else {}),
            **_named(call.prompt),
            **more,
        }
        content = {"input": jsonable(call.messages), "output": jsonable(output)}
        return ModelEnd(
            self._ref, call.state, call.hold, cost, used.input, used.output, data,
            self._redactor.scrub(content), Pending(),
        )  # fmt: skip

    async def _settle(self, runtime: Runtime, end: ModelEnd) -> None:
        taken = self._meter.drain()
        end = replace(end, pending=taken)
        self._meter.synced(await self._commit(runtime, taken, end_model, end), taken)
        if end.cost and self._around.traced:
            _metrics.cost(self._workflow, "model", dollars(end.cost))

    def _settle_apart(self, end: ModelEnd) -> None:
        """Settle after an interrupt, behind whatever of the call is still on its way to the store."""
        usage = write_apart(self._around.store, end_model, end)
        if usage is not None:
            self._meter.synced(usage, Pending())

    async def _commit(self, runtime: Runtime, taken: Pending, verb: Any, *args: Any) -> Any:
        return await self._meter.commit(runtime, self._around.store, taken, verb, *args)


def _counted(told: Tokens) -> tuple[Tokens, bool]:
    """Return tokens as counts, and whether they are: the call was made, whatever was told of it."""
    kept = told.cached or 0, told.cache_write or 0
    counts = [_count(number) for number in (told.input, told.output, *kept)]
    return Tokens(*(number or 0 for number in counts)), None not in counts


def _count(number: Any) -> int | None:
    try:
        found = operator.index(number)
    except TypeError:
        return None
    return found if 0 <= found <= _MOST_TOKENS else None


def _was_served(error: BaseException | None) -> bool:
    """Return whether a call that ended so, and told no tokens, may have used some all the same.

    A provider that refuses charges nothing; whoever stopped waiting does not know.
    """
    if not isinstance(error, Exception):  # answered, or interrupted
        return True
    return any("Timeout" in kind.__name__ for kind in type(error).__mro__)


def _named(prompt: Prompt | None) -> dict[str, str | None]:
    if prompt is None:
        return {}
    return {"prompt_name": prompt.name, "prompt_version": prompt.version}


class Reporting(Protocol):
    """What these need from a run."""

    models: ModelCalls


class Modelled:
    """What adapters report to a run of its model calls."""

    def model_started(
        self: Reporting, *, model: str, messages: Any, call_id: str | None = None,
        max_output_tokens: int | None = None, prompt: Prompt | tuple[str, str | None] | str | None = None,
    ) -> ModelCall:  # fmt: skip
        """Reserve a model call before it is dispatched.

        Args:
            model: the model's name, as prices know it.
            messages: what it is asked, as JSON types; kept beside the chain.
            call_id: the runtime's id of the call.
            max_output_tokens: the most it may answer, for the worst case of its cost.
            prompt: the prompt's name, or its name and version, or an `agentguard.prompts.Prompt`.

        Raises:
            BudgetExceeded: the run has no room for it.
            ConfigurationError: *prompt* is none of these.
            RunHalted: the run was stopped.
        """
        call = self.models.ask(
            model=model, messages=messages, call_id=call_id, max_output_tokens=max_output_tokens,
            prompt=prompt,
        )  # fmt: skip
        self.models.start(call)
        return call

    async def amodel_started(
        self: Reporting, *, model: str, messages: Any, call_id: str | None = None,
        max_output_tokens: int | None = None, prompt: Prompt | tuple[str, str | None] | str | None = None,
    ) -> ModelCall:  # fmt: skip
        """Like `model_started`, on an event loop; cancelled meanwhile, it gives back what it took."""
        call = self.models.ask(
            model=model, messages=messages, call_id=call_id, max_output_tokens=max_output_tokens,
            prompt=prompt,
        )  # fmt: skip
        await self.models.astart(call)
        return call

    def model_finished(
        self: Reporting, call: ModelCall, *, output: Any = None, input_tokens: int = 0,
        output_tokens: int = 0, cached_tokens: int = 0, cache_write_tokens: int = 0,
        error: BaseException | None = None,
    ) -> None:  # fmt: skip
        """Settle a model call with what it used and answered, or with its error.

        Args:
            call: what `model_started` returned.
            output: the answer, as JSON types; kept beside the chain.
            input_tokens: of the question, cached ones included. Without any tokens, what an
                answered call cost is not known.
            output_tokens: of the answer.
            cached_tokens: of the question, those that the provider had in its cache.
            cache_write_tokens: of the question, those that it put there.
            error: what was raised instead of an answer.
        """
        used = Tokens(input_tokens, output_tokens, cached_tokens, cache_write_tokens)
        self.models.finish(call, output, used, error)

    async def amodel_finished(
        self: Reporting, call: ModelCall, *, output: Any = None, input_tokens: int = 0,
        output_tokens: int = 0, cached_tokens: int = 0, cache_write_tokens: int = 0,
        error: BaseException | None = None,
    ) -> None:  # fmt: skip
        """Like `model_finished`, on an event loop."""
        used = Tokens(input_tokens, output_tokens, cached_tokens, cache_write_tokens)
        await self.models.afinish(call, output, used, error)
