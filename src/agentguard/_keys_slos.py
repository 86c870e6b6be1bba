"""The keys of service levels in `agent_run.yaml`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from ._burning import Burn, Window
from ._key_types import Duration, Keys, Text, Whole, Word, like, says
from .durations import seconds
from .errors import ConfigurationError
from .slos import MEASURED, Demotion, Sli, Slo

_LONGEST: Final = 366 * 86_400
_SPAN: Final = re.compile(r"[1-9][0-9]{0,5}[smhd]")
_AMOUNT: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_ANY: Final = "x"
NOT_DEMOTED: Final = ("latency", "escalation")
"""A person more in the way makes these worse, so they demote only where they are told to."""


def _number(value: object, example: str) -> Decimal:
    # A bool is an int to Python, and a float has already lost what the file says.
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        msg = f"must be a number without quotes, such as {example}"
    elif not Decimal(value).is_finite() or value <= 0:
        msg = f"must be more than 0, such as {example}"
    else:
        return Decimal(value)
    raise ValueError(msg)


def _target(value: object) -> Decimal:
    target = _number(value, "0.95")
    if target > 1:
        msg = f"must be above 0 and at most 1, such as 0.95; {target:f} % is {target / 100:f}"
        raise ValueError(msg)
    return target


def _factor(value: object) -> Decimal:
    return _number(value, "14.4")


def _part(value: object) -> Window:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return Window(last=value)
    if isinstance(value, str) and _SPAN.fullmatch(value):
        return Window(seconds=int(seconds(value, "window")))
    msg = "must be a time such as 1h, or so many outcomes such as 20"
    raise ValueError(msg)


def _at_most(value: object) -> str:
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        value = f"{Decimal(value):f}" if Decimal(value).is_finite() else ""
    if isinstance(value, str) and _AMOUNT.fullmatch(value):
        return value
    msg = 'must be US dollars such as "0.40", or a time such as 30s'
    raise ValueError(msg)


def _off(value: object) -> object:
    if value == "off":
        return {"burning": "off", "exhausted": "off"}
    if isinstance(value, str):
        msg = "must be off, or hold keys beneath it"
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns only a ValueError into a problem
    return value


class _OrOff:
    """In JSON Schema: off, or keys."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"const": "off"}, handler(core)]}


def _positive(**limits: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "number", "exclusiveMinimum": 0, **limits})


SloName = Annotated[
    str,
    like(
        r"^[A-Za-z]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$",
        "1 to 63 letters, digits, - and _, the first a letter, so that metrics can carry it",
    ),
]
_Target = Annotated[Decimal, BeforeValidator(_target), _positive(maximum=1)]
_Factor = Annotated[Decimal, BeforeValidator(_factor), _positive()]
_Part = Annotated[
    Window,
    BeforeValidator(_part),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{_SPAN.pattern}$"},
                              {"type": "integer", "minimum": 1}]}),
]  # fmt: skip
_AtMost = Annotated[
    str,
    BeforeValidator(_at_most),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{_AMOUNT.pattern}$"},
                              {"type": "number", "exclusiveMinimum": 0}]}),
]  # fmt: skip
_Stage = Literal["draft", "propose", "approve", "off"]


class BurnKeys(Keys):
    """One rule by which the error budget burns too fast."""

    long: _Part = Field(description="What shows that it matters, such as 1h, or 20 outcomes.")
    short: _Part = Field(description="What shows that it still goes on, such as 5m.")
    factor: _Factor = Field(description="Times as fast as the budget lasts, such as 14.4.")
    severity: Literal["page", "ticket"] = says("page takes autonomy away, ticket tells.", "page")

    def burn(self) -> Burn:
        """Return it as the value that outcomes are held against."""
        return Burn(self.long, self.short, self.factor, self.severity)


class RestoreKeys(Keys):
    """When autonomy comes back, besides that the service level is well."""

    after: Duration | None = says("How long it must have been well, such as 30m.")
    good: Whole | None = says("Good outcomes without a bad one since it was taken away.")


class DemoteKeys(Keys):
    """How far autonomy falls while a service level is not met."""

    burning: _Stage = says("The stage while its budget burns too fast.", "approve")
    exhausted: _Stage = says("The stage while its budget is used up.", "draft")
    restore: RestoreKeys = says("When it comes back.", RestoreKeys())

    def demotion(self) -> Demotion | None:
        """Return it as the value that starts obey; None where nothing follows."""
        stages = [None if stage == "off" else stage for stage in (self.burning, self.exhausted)]
        if stages == [None, None]:
            return None
        after = self.restore.after
        waits = None if after is None else int(seconds(after, "after"))
        return Demotion(stages[0], stages[1], waits, self.restore.good)


class SloKeys(Keys):
    """One service level of a workflow or of a tool."""

    workflow: Text | None = says("Whose runs are counted; or tool.")
    tool: Text | None = says("Whose calls are counted; or workflow.")
    sli: Sli | None = says("What is looked at; left out: success, of a tool correctness.")
    target: _Target = Field(description="The share that must be good, such as 0.95.")
    window: Duration | None = says("The time over which it must be so, such as 28d; or last.")
    last: Whole | None = says("The last so many outcomes over which it must be so; or window.")
    min: Whole = says("Outcomes below which nothing is said.", 10)
    at_most: _AtMost | None = says('Of a good run: US dollars ("0.40") or time (30s).')
    abandoned: Duration | None = says(
        "A run of which nothing is heard for so long counts as a failure; left out: never."
    )
    counts: dict[Word, Literal["good", "bad", "ignore"]] = says(
        "Outcome: how it counts, where that differs from the default.", {}
    )
    burn: tuple[BurnKeys, ...] = says("When its budget burns too fast; left out: by default.", ())
    demote: Annotated[DemoteKeys | None, BeforeValidator(_off), _OrOff()] = says(
        "How far autonomy falls while it is not met, or off."
    )

    @model_validator(mode="after")
    def _consistent(self) -> SloKeys:
        try:
            self.slo(_ANY)
        except ConfigurationError as error:
            raise ValueError(error.message.partition(f"{_ANY!r} ")[2]) from None
        return self

    def slo(self, name: str) -> Slo:
        """Return it as the value that outcomes are judged by."""
        sli = self.sli or ("success" if self.tool is None else "correctness")
        return Slo(
            name,
            sli,
            workflow=self.workflow,
            tool=self.tool,
            target=self.target,
            window=self._window(),
            min_count=self.min,
            at_most=None if self.at_most is None else self._amount(sli, self.at_most),
            abandoned=None if self.abandoned is None else int(seconds(self.abandoned, "abandoned")),
            counts=self.counts,
            burn=tuple(rule.burn() for rule in self.burn),
            demote=self._demotion(sli),
        )

    def _window(self) -> Window:
        if (self.window is None) == (self.last is None):
            msg = "needs either window: with a time such as 28d or last: with a number, one of the two"
            raise ValueError(msg)
        if self.window is None:
            return Window(last=self.last)
        period = int(seconds(self.window, "window"))
        if period > _LONGEST:
            msg = f"has the window {self.window}; write at most 366d"
            raise ValueError(msg)
        return Window(seconds=period)

    def _amount(self, sli: str, text: str) -> Decimal:
        match = _AMOUNT.fullmatch(text)
        number, unit = match.groups() if match else ("0", "")
        if sli in MEASURED and bool(unit) != (sli == "latency"):
            mend = 'a time such as "30s"' if sli == "latency" else 'US dollars such as "0.40"'
            msg = f"has at_most: {text}; for the sli {sli} write {mend}"
            raise ValueError(msg)
        return Decimal(number) * _UNITS[unit]

    def _demotion(self, sli: str) -> Demotion | None:
        if self.demote is not None:
            return self.demote.demotion()
        return None if sli in NOT_DEMOTED else Demotion()


ServiceLevels = dict[SloName, SloKeys]
SERVICE_LEVELS: Final = says(
    "By name: which share of runs or calls must be good, and what follows if it is not.", {}
)
