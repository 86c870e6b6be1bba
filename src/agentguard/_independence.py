"""Separation of duties: who confirms an outcome is somebody else than who proposed the call."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from ._names import same_model
from .errors import ConfigurationError, GuardError, PermissionDenied
from .ledger.model_calls import models_called
from .model import NANOS, dollars, nanos
from .routing import proposing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from ._models import ModelCalls, Surroundings
    from ._runtime import Runtime
    from ._verdicts import Check
    from .config import Settings
    from .model import Principal
    from .tool import Call, Duties, Tool

CLASSES = ("nobody", "rule", "model", "model+person")
"""How independent a verification is, weakest first."""
_MENDS = {
    "rule": "add @verified_by with a check",
    "model": "add a verifier of another model to @verified_by, such as model_verifier(...)",
    "model+person": (
        "add a verifier of another model to @verified_by, and @requires_approval() without when="
    ),
}


def _same(models: Iterable[str], proposers: Iterable[str]) -> tuple[str, str] | None:
    named = list(proposers)
    for model in models:
        for proposer in named:
            if same_model(model, proposer):
                return model, proposer
    return None


def disguised(checks: Sequence[Check], proposers: Collection[str], what: str) -> str | None:
    """Return the sentence that refuses a verifier which is the proposer, or None."""
    for check in checks:
        found = _same(check.identity.models, proposers)
        if found is not None:
            model, proposer = found
            named = model if model == proposer else f"{model} (the same as {proposer})"
            return (
                f"{what}: the verifier {check.name} asks {named}, which proposes the calls: give it"
                " another model, or let another one propose"
            )
    return None


def _owned(tool: Tool) -> str | None:
    for check in tool.checks:
        owner = check.identity.owner
        if owner is not None and tool.owner is not None and _plain(owner) == _plain(tool.owner):
            return (
                f"{tool.name}: its verifier {check.name} is owned by {owner}, as the tool is: let"
                " another team own the verifier, and say so in owner="
            )
    return None


def _plain(owner: str) -> str:
    return unicodedata.normalize("NFKC", owner).casefold().strip()


# Classes.


def offered(checks: Sequence[Check], *, asks_always: bool) -> str:
    """Return how independent these verifiers are."""
    kinds = {check.identity.kind for check in checks}
    if "model" in kinds:
        return "model+person" if asks_always or "person" in kinds else "model"
    return "rule" if kinds else "nobody"


def _is_less(one: str, other: str) -> bool:
    return CLASSES.index(one) < CLASSES.index(other)


def _stronger(one: str, other: str) -> str:
    return other if _is_less(one, other) else one


def may_end(check: Check, needs: str) -> bool:
    """Return whether a final yes of *check* is as independent as the call needs."""
    return not _is_less(_OF_KIND[check.identity.kind], needs)


_OF_KIND = {"rule": "rule", "model": "model", "person": "model+person"}


@dataclass(frozen=True, slots=True)
class ToolDuties:
    """What the calls of one tool demand of its verification.

    Attributes:
        checks: its verifiers that ask a model.
        offers: the independence class that it has.
        demands: the class that every call needs.
        thresholds: US dollars in nano-dollars, from the lowest, and the class above them.
        cost: what a call costs or moves; None if that cannot be told.
    """

    tool: str
    checks: tuple[Check, ...]
    offers: str
    demands: str
    thresholds: tuple[tuple[int, str], ...] = ()
    cost: Callable[[Call], int | None] = field(default=lambda _call: 0, repr=False)

    def demanded(self, call: Call) -> str:
        """Return the class that *call* needs."""
        return self._demanded(call)[0]

    def _demanded(self, call: Call) -> tuple[str, int | None]:
        needs = self.demands
        cost = self.cost(call) if self.thresholds else 0
        for limit, independence in self.thresholds:
            if cost is None or cost > limit:
                needs = _stronger(needs, independence)
        return needs, cost

    def refusal(self, call: Call, proposers: Collection[str]) -> GuardError | None:
        """Return why *call* may not start, or None."""
        sentence = disguised(self.checks, proposers, self.tool)
        if sentence is not None:
            return ConfigurationError(sentence)
        needs, cost = self._demanded(call)
        if not _is_less(self.offers, needs):
            return None
        much = "an amount that cannot be told" if cost is None else f"{dollars(cost)} US dollars"
        return PermissionDenied(
            f"{self.tool}: {much} needs the verification class {needs}, and it has"
            f" {self.offers}: {_MENDS[needs]}"
        )


def separate(tool: Tool, settings: Settings, *, asks_always: bool) -> None:
    """Hold the verifiers on a full sheet against the tool and the configuration.

    Raises:
        ConfigurationError: one of them is the proposer, or they are not independent enough.
    """
    models = tuple(check for check in tool.checks if check.identity.kind == "model")
    sentence = disguised(models, proposing(settings), tool.name) or _owned(tool)
    if sentence is not None:
        raise ConfigurationError(sentence)
    offers, demands = offered(tool.checks, asks_always=asks_always), "nobody"
    for why, needs in _demands(tool, settings):
        if _is_less(offers, needs):
            raise ConfigurationError(
                f"{tool.name}: {why} needs the verification class {needs}, and it has {offers}:"
                f" {_MENDS[needs]}"
            )
        demands = _stronger(demands, needs)
    thresholds = settings.spend_demands if tool.effect == "write" else ()
    if models or thresholds:
        limits = tuple((nanos(limit), independence) for limit, independence in thresholds)
        tool.duties = ToolDuties(tool.name, models, offers, demands, limits, _cost_of(tool))


def _demands(tool: Tool, settings: Settings) -> Iterable[tuple[str, str]]:
    """Yield what every call of the tool demands, and why."""
    if tool.independence is not None:
        yield f"require={tool.independence!r}", tool.independence
    if tool.irreversible and tool.checks:
        yield "irreversible=True with a verifier", settings.irreversible_demands
    if tool.effect == "write" and tool.fixed_cost is not None:
        for limit, independence in settings.spend_demands:
            if tool.fixed_cost > nanos(limit):
                yield f"a cost over {limit} US dollars", independence


def _cost_of(tool: Tool) -> Callable[[Call], int | None]:
    """Return what tells the cost of a call: its budget, or else its facts in US dollars."""
    facts = [argument for fact, argument in tool.facts.items() if fact.endswith("usd")]

    def cost(call: Call) -> int | None:
        reservations, held = tool.reserve(call) if tool.reserve else ((), 0)
        amounts: list[int | None] = [held, *(r.amount for r in reservations)]
        amounts += [_nanos(call.arguments.get(name)) for name in facts]
        known = [amount for amount in amounts if amount is not None]
        return max(known) if len(known) == len(amounts) else None

    return cost


def _nanos(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        return abs(int(Decimal(str(value)) * NANOS))
    except (ArithmeticError, ValueError):
        return None


# Before a call.


class Proposing(Protocol):
    """What is asked of a run to know who proposes its calls."""

    guard: Any

    @property
    def id(self) -> str:
        """The run's id."""
        ...

    @property
    def principal(self) -> Principal:
        """Who acts."""
        ...

    @property
    def around(self) -> Surroundings:
        """Its store, and which model does what."""
        ...

    @property
    def models(self) -> ModelCalls:
        """The models that it has called."""
        ...


async def look(runtime: Runtime, run: Proposing, call: Call, duties: Duties) -> None:
    """Learn which models the run has really called, and refuse a read that may not start.

    Writes are refused in their start transaction, after the look whether they were done already.

    Raises:
        ConfigurationError: a verifier is one of those models.
        PermissionDenied: it is not independent enough for this call.
    """
    if duties.checks:
        await learn(runtime, run)
    refusal = duties.refusal(call, proposers_of(run)) if call.tool.effect == "read" else None
    if refusal is not None:
        raise refusal


async def learn(runtime: Runtime, run: Proposing) -> None:
    """Read which models were called in this run, here and by earlier parts or other processes."""
    known = run.models
    found, known.seen = await runtime.look(
        run.around.store, models_called, run.principal.tenant, run.id, known.seen
    )
    known.called.update(found)


def proposers_of(run: Proposing) -> frozenset[str]:
    """Return the models that propose the calls of a run, as far as is known."""
    own = (run.principal.model,) if run.principal.model else ()
    return frozenset({*run.models.called, *proposing(run.guard.settings), *own})
