"""The room of estimates: what a plan costs at the worst, said before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from .errors import ConfigurationError, GuardError
from .model import dollars, nanos
from .plans import Sheets, steps_of, template_named
from .templates import Template, bare
from .tool import Call

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .config import Settings
    from .ledger.values import Ask, Reservation
    from .model import Limits, Principal
    from .plans import Step
    from .protocols import Store
    from .tool import Tool

_NOTHING = Decimal(0)


class Office(Sheets, Protocol):
    """What an estimate needs from a guard."""

    settings: Settings
    principal: Principal
    store: Store


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """What one step of a plan costs at the worst.

    Attributes:
        calls: how many calls it stands for.
        starts: how often their bodies may be started, all tries together.
        usd: what the run pays for them if every try is paid for; None if it is not known.
        moved_usd: what they move under a budget of the tool's own, which the run does not pay.
        decisions: how many decisions of people they may wait for.
    """

    number: int
    tool: str
    calls: int
    starts: int
    usd: Decimal | None
    moved_usd: Decimal
    decisions: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan costs at the worst; what is not known is None, and said in words.

    Attributes:
        tool_calls: calls of tools that the plan stands for.
        model_calls: calls of models that the limits allow; None if they do not limit them.
        total_usd: of the parts that are known.
        unknown: what is not known, and how to make it known.
        misfits: which limits are too small for the worst case.
    """

    steps: tuple[StepEstimate, ...]
    tool_calls: int
    model_calls: int | None
    tool_usd: Decimal | None
    model_usd: Decimal | None
    human_minutes: Decimal | None
    human_usd: Decimal | None
    total_usd: Decimal
    unknown: tuple[str, ...]
    misfits: tuple[str, ...]

    @property
    def fits(self) -> bool | None:
        """Whether the limits have room for the worst case; None if too little is known to say."""
        if self.misfits:
            return False
        return None if self.unknown else True


@dataclass(frozen=True, slots=True)
class Assumed:
    """What an estimate takes for granted of model calls: how many, and US dollars for each."""

    calls: int | None
    usd: Decimal | None


def estimate(
    guard: Office, plan: Any, *, parameters: Mapping[str, Any], limits: Limits,
    model_usd: Decimal | None,
) -> Estimate:  # fmt: skip
    """Return what *plan* costs at the worst under *limits*."""
    steps, sheets = steps_of(_given(guard, plan, parameters), guard)
    drafts = [_Draft(guard, number, *pair) for number, pair in
              enumerate(zip(steps, sheets, strict=True), 1)]  # fmt: skip
    unknown = [problem for draft in drafts for problem in draft.unknown]
    found = tuple(draft.estimate() for draft in drafts)
    models = Assumed(limits.max_model_calls, model_usd)
    people = guard.settings.costs
    decisions = sum(step.decisions for step in found)
    minutes = people.minutes_per_decision if decisions else _NOTHING
    minutes = None if minutes is None else minutes * decisions
    human = None if minutes is None else people.nanos(minutes) if minutes else 0
    tool_usd, model = _sum(step.usd for step in found), _models_usd(models)
    human_usd = None if human is None else dollars(human)
    unknown += _unknown_of_models(models)
    unknown += _unknown_of_people(decisions, minutes, human_usd)
    total = sum((usd for usd in (tool_usd, model, human_usd) if usd is not None), _NOTHING)
    if tool_usd is None:
        total += sum((step.usd for step in found if step.usd is not None), _NOTHING)
    calls = sum(step.calls for step in found)
    misfits = [*_over(limits, calls, models, total), *_over_budgets(drafts)]
    return Estimate(
        found, calls, models.calls, tool_usd, model, minutes, human_usd, _cents(total),
        tuple(unknown), tuple(misfits),
    )  # fmt: skip


def _given(guard: Office, plan: Any, parameters: Mapping[str, Any]) -> Iterable[Any]:
    """Return the steps; of a template whose parameters are not given, without what they fill."""
    if not isinstance(plan, str | Template):
        if parameters:
            raise ConfigurationError("estimate: parameters are for templates; a plan has none")
        return plan  # type: ignore[no-any-return] # checked by `steps_of`
    template = template_named(guard, plan)
    return template.fill(**parameters) if parameters else bare(template)


class _Draft:
    """One step while it is estimated."""

    def __init__(self, guard: Office, number: int, step: Step, tool: Tool | None) -> None:
        self.number, self.step, self.tool, self.guard = number, step, tool, guard
        self.unknown: list[str] = []
        self.reservations: tuple[Reservation, ...] = ()
        self.cost: int | None = 0
        if tool is None:
            self.cost = None
            self._miss(f"{step.tool} is not among the tools that were given")
        else:
            self.call = _call(guard, tool, step.arguments)
            self._reserve(tool)

    def _miss(self, problem: str) -> None:
        self.unknown.append(f"step {self.number}: {problem}")

    def _reserve(self, tool: Tool) -> None:
        reserve: Any = tool.reserve
        if reserve is None:
            return
        try:
            self.reservations, self.cost = reserve(self.call)
            if self.cost is None:
                self._miss(f"what {tool.name} costs: its cost returns nothing")
        except Exception:  # noqa: BLE001 - a cost over arguments that the plan leaves free
            self.reservations, self.cost = reserve.capped(self.call)
            if self.cost is None or not self.reservations:
                self._miss(f"what {tool.name} costs depends on arguments that the plan leaves free")

    @property
    def starts(self) -> int:
        """How often bodies may be started."""
        return self.step.repeat * (self.tool.retry.attempts if self.tool else 1)

    def estimate(self) -> StepEstimate:
        """Return what the step costs at the worst."""
        calls = self.step.repeat
        moved = 0 if self.cost else sum(r.amount for r in self.reservations) * calls
        return StepEstimate(
            self.number, self.step.tool, calls, self.starts, self._usd(), dollars(moved),
            self._decisions() * calls,
        )  # fmt: skip

    def _usd(self) -> Decimal | None:
        caps = [r.max_spend for r in self.reservations if r.max_spend is not None]
        if self.cost is None:
            return None
        return dollars(min([self.cost * self.starts, *caps]) if self.cost else 0)

    def _decisions(self) -> int:
        """How many people may have to decide on one call."""
        if self.tool is None:
            return 0
        asks = [_asked(rule, self.call) for rule in self.tool.rules]
        asks += [1] * self._is_held_back(self.tool)
        return max(asks, default=0)

    def _is_held_back(self, tool: Tool) -> bool:
        autonomy = self.guard.settings.autonomy
        stage = None if autonomy is None else autonomy.stage(tool.name, tool.effect)
        return stage not in (None, "auto")


def _asked(rule: Any, call: Call) -> int:
    """Return how many people a rule asks; one that cannot tell without more arguments may ask."""
    try:
        ask: Ask | None = rule(call)
    except Exception:  # noqa: BLE001 - it may ask
        return 1
    return 0 if ask is None else ask.quorum


def _call(guard: Office, tool: Tool, arguments: Mapping[str, Any]) -> Call:
    try:
        values = tool.arguments.check(dict(arguments))
    except GuardError:  # some are free
        values = dict(arguments)
    return Call(tool, "estimate", guard.principal, values, {}, {}, "", guard.store.clock.now())


def _sum(parts: Iterable[Decimal | None]) -> Decimal | None:
    total = _NOTHING
    for part in parts:
        if part is None:
            return None
        total += part
    return _cents(total)


def _cents(amount: Decimal) -> Decimal:
    return dollars(nanos(amount))


def _models_usd(models: Assumed) -> Decimal | None:
    if models.calls == 0:
        return _cents(_NOTHING)
    if models.calls is None or models.usd is None:
        return None
    return _cents(models.usd * models.calls)


def _unknown_of_models(models: Assumed) -> Iterator[str]:
    if models.calls is None:
        yield "how many model calls: set max_model_calls"
    elif models.usd is None and models.calls:
        yield (
            "what a model call costs: give model_usd=, or model= with input_tokens= and output_tokens="
            " to a guard with prices"
        )


def _unknown_of_people(
    decisions: int, minutes: Decimal | None, usd: Decimal | None
) -> Iterator[str]:
    if decisions and minutes is None:
        yield f"how long {decisions} decisions of people take: configure costs: minutes_per_decision"
    elif decisions and usd is None:
        yield "what people's time costs: configure costs: human_usd_per_hour"


def _over(limits: Limits, calls: int, models: Assumed, total: Decimal) -> Iterator[str]:
    steps = calls + (models.calls or 0)
    if limits.max_tool_calls is not None and calls > limits.max_tool_calls:
        yield f"max_tool_calls is {limits.max_tool_calls} and the plan has {calls}"
    if limits.max_steps is not None and steps > limits.max_steps:
        yield (
            f"max_steps is {limits.max_steps} and the plan has {calls} calls of tools beside"
            f" {models.calls or 0} of models"
        )
    spend = None if limits.max_spend is None else dollars(limits.max_spend)
    if spend is not None and total > spend:
        yield f"max_spend_usd is {spend} and the worst case is {_cents(total)}"


def _over_budgets(drafts: Sequence[_Draft]) -> Iterator[str]:
    """Hold the calls of the plan against the budgets that tools have of their own."""
    calls: dict[str, int] = {}
    spent: dict[str, int] = {}
    labels: dict[str, Reservation] = {}
    for draft in drafts:
        for item in draft.reservations:
            labels[item.label] = item
            calls[item.label] = calls.get(item.label, 0) + draft.step.repeat
            spent[item.label] = spent.get(item.label, 0) + item.amount * draft.step.repeat
    for label, item in labels.items():
        if item.max_calls is not None and calls[label] > item.max_calls:
            yield f"max_calls of {label} is {item.max_calls} and the plan has {calls[label]}"
        if item.max_spend is not None and spent[label] > item.max_spend:
            limit, amount = dollars(item.max_spend), dollars(spent[label])
            yield f"max_spend_usd of {label} is {limit} and the plan comes to {amount}"
