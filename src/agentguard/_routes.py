"""The room of routing: which model a run asks next, and when a heavier one takes over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ._runtime import AsyncioRuntime, InlineRuntime, run_inline
from .ledger import routes
from .ledger.values import Draft
from .model import nanos
from .prices import Tokens, price_now
from .routing import route_of

if TYPE_CHECKING:
    from ._meter import Meter
    from ._models import Surroundings
    from ._runtime import Runtime
    from .ledger.values import RunRef
    from .routing import Route

_TYPICAL = (2000, 500)
"""Input and output tokens of a call, where the run has made none yet."""


class Running(Protocol):
    """What routing needs from a run."""

    guard: Any
    ref: RunRef
    around: Surroundings
    meter: Meter
    routed: routes.Past
    moving: dict[str, object]

    async def flush(self, runtime: Runtime) -> None:
        """Write the events that wait."""
        ...


class Routed:
    """What a run can say about who does what."""

    routed: routes.Past = routes.Past()

    def model_for(self: Running, role: str) -> str:
        """Return the model that calls of *role* go to now, as `init_chat_model` and prices name it.

        Ask anew before every call: once as many verdicts have failed in this run as
        `routing.escalation` says, it is the heavier model, if the budget has room for one call of
        it. That stands in the record and holds for the rest of the run, also when it is resumed.

        Args:
            role: `planner`, `executor` or `verifier`.

        Raises:
            ConfigurationError: there is no such role, nothing is said of it, or the verifier would
                be a model that proposes.
        """
        return run_inline(_route(InlineRuntime(), self, role)).model

    async def amodel_for(self: Running, role: str) -> str:
        """Like `model_for`, on an event loop."""
        return (await _route(AsyncioRuntime(), self, role)).model

    def role(self: Running, role: str) -> Route:
        """Return where calls of *role* go now: alias, model, service, and whether it has escalated.

        Raises:
            ConfigurationError: as `model_for`.
        """
        return run_inline(_route(InlineRuntime(), self, role))

    async def arole(self: Running, role: str) -> Route:
        """Like `role`, on an event loop."""
        return await _route(AsyncioRuntime(), self, role)


async def _route(runtime: Runtime, run: Running, role: str) -> Route:
    settings, heavier = run.guard.settings, run.guard.settings.escalation
    light = route_of(settings, role)
    if heavier is None or role not in heavier.roles:
        return light
    heavy = route_of(settings, role, escalated=True)
    if role in run.moving or role in run.routed.moved:
        return heavy
    await _hear(runtime, run)
    if role not in run.routed.moved:
        if run.routed.refuted < heavier.after or not _has_room(run, heavy.model):
            return light
        _move(run, light, heavy)
    return heavy


async def _hear(runtime: Runtime, run: Running) -> None:
    """Read on in the record; a failed verdict that waits for a commit is written first."""
    if any(routes.is_refuted(draft.kind, draft.data) for draft in run.meter.waiting()):
        await run.flush(runtime)
    run.routed = await runtime.look(
        run.around.store, routes.since, run.ref.tenant, run.ref.run_id, run.routed
    )


def _has_room(run: Running, model: str) -> bool:
    """Return whether the budget has room for one call of *model* like the last one of the run.

    What has no price counts as affordable here: the budget itself judges the call.
    """
    limits, used = run.meter.limits, run.meter.usage
    if limits.max_model_calls is not None and used.model_calls + 1 > limits.max_model_calls:
        return False
    if limits.max_spend is None:
        return True
    price = _price(run, model, *(run.routed.tokens or _TYPICAL))
    return used.spent + used.held + (price or 0) <= limits.max_spend


def _price(run: Running, model: str, asked: int, answered: int) -> int | None:
    """Return nano-dollars; providers report a model without their own name before it."""
    around, tokens = run.around, Tokens(asked, answered)
    for name in (model, model.partition(":")[2]):
        price = price_now(around.prices, around.store.clock, name, tokens) if name else None
        if price is not None:
            return nanos(price.usd)
    return None


def _move(run: Running, light: Route, heavy: Route) -> None:
    """Let the heavier model take over: once in this process, told with the next commit."""
    mine, count = object(), run.routed.refuted
    if run.moving.setdefault(light.role, mine) is mine:
        why = f"{count} failed verdict{'' if count == 1 else 's'}"
        fact = {"role": light.role, "from": light.model, "to": heavy.model, "why": why}
        run.meter.note(Draft(routes.MOVED, fact))
