"""Windows of a service level and the rules by which its error budget burns too fast."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal, localcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from ._wilson import DIGITS, enough
from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

Severity = Literal["page", "ticket"]

_UNITS: Final = (("d", 86_400), ("h", 3600), ("m", 60))
_DAY: Final = 86_400
_CENT: Final = Decimal("0.01")


def span(seconds: int) -> str:
    """Return a duration as a configuration writes it, such as `28d`."""
    unit, size = next((u for u in _UNITS if not seconds % u[1]), ("s", 1))
    return f"{seconds // size}{unit}"


@dataclass(frozen=True, slots=True)
class Window:
    """What outcomes count: those of the last *seconds*, or the *last* so many."""

    seconds: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        said = [size for size in (self.seconds, self.last) if size is not None]
        if len(said) != 1 or said[0] < 1:
            raise ConfigurationError(
                "a window is either so many seconds or the last so many outcomes, at least 1"
            )

    @property
    def size(self) -> int:
        """Return its seconds, or its outcomes."""
        return self.seconds or self.last or 0

    @property
    def text(self) -> str:
        """Return it for people: `28d` or `last 100`."""
        return f"last {self.last}" if self.last else span(self.size)

    def is_like(self, other: Window) -> bool:
        """Return whether both count time, or both outcomes."""
        return (self.last is None) == (other.last is None)


@dataclass(frozen=True, slots=True)
class Burn:
    """A rule: in both windows more than *factor* times what the budget allows was bad.

    Attributes:
        long: what shows that it matters.
        short: what shows that it still goes on.
        factor: how many times faster than evenly the budget is spent.
        severity: `page` takes autonomy away, `ticket` is only told.
        asked: the factor before it was made reachable; None where it is as it was.
    """

    long: Window
    short: Window
    factor: Decimal
    severity: Severity = "page"
    asked: Decimal | None = None

    @property
    def text(self) -> str:
        """Return it for people: `14.4x in 1h and 5m`."""
        return f"{self.factor:f}x in {self.long.text} and {self.short.text}"


def most(budget: Decimal) -> Decimal | None:
    """Return how fast a *budget* burns when everything is bad; None if there is no limit."""
    with localcontext() as exact:
        exact.prec = DIGITS
        return 1 / budget if budget else None


def shortened(number: Decimal) -> str:
    """Return *number* for people, cut to hundredths."""
    return f"{number.quantize(_CENT, ROUND_DOWN).normalize():f}"


# Share of the budget, long window, short window: of the SRE workbook, for 30 days.
_BY_TIME: Final[tuple[tuple[str, int, int, Severity], ...]] = (
    ("0.02", 3600, 300, "page"),
    ("0.05", 6 * 3600, 1800, "page"),
    ("0.1", _DAY, 2 * 3600, "ticket"),
    ("0.1", 3 * _DAY, 6 * 3600, "ticket"),
)
# Half of the budget within a tenth, a quarter and a half of the outcomes.
_BY_COUNT: Final[tuple[tuple[int, Severity], ...]] = ((10, "page"), (4, "page"), (2, "ticket"))
_SHORTEST: Final = 5
_MINUTE: Final = 60
_REACHABLE: Final = Decimal("0.75")


@lru_cache(maxsize=256)
def default_burns(window: Window, budget: Decimal, min_count: int) -> tuple[Burn, ...]:
    """Return the rules of a service level that names none, none of them out of reach.

    Args:
        window: the service level's.
        budget: the share that may be bad.
        min_count: outcomes below which nothing is said.
    """
    least = max(min_count, enough(budget))
    rules = _by_count(window.last, least) if window.last else _by_time(window.size)
    found: dict[tuple[Window, Window], Burn] = {}
    for rule in rules:
        found.setdefault((rule.long, rule.short), _reachable(rule, budget))
    return tuple(found.values())


def _by_time(period: int) -> Iterator[Burn]:
    for share, long, short, severity in _BY_TIME:
        seconds = min(period, _scaled(long, period, 5 * _MINUTE))
        windows = Window(seconds), Window(min(seconds, _scaled(short, period, _MINUTE)))
        yield Burn(*windows, _factor(Decimal(share) * period / seconds), severity)


def _scaled(seconds: int, period: int, least: int) -> int:
    """Scale a window of 30 days to *period*, in whole minutes; a month's stays as it is."""
    if 28 * _DAY <= period <= 31 * _DAY:
        return seconds
    return max(least, round(seconds * period / (30 * _DAY * 60)) * 60)


def _by_count(last: int, least: int) -> Iterator[Burn]:
    for part, severity in _BY_COUNT:
        long = min(last, max(least, -(-last // part)))
        short = min(long, max(_SHORTEST, long // _SHORTEST))
        factor = _factor(Decimal(last) / (2 * long))
        yield Burn(Window(last=long), Window(last=short), factor, severity)


def _factor(exact: Decimal) -> Decimal:
    """Return it in hundredths, at least 1: slower than evenly is no burning."""
    return max(Decimal(1), exact.quantize(_CENT, ROUND_HALF_UP).normalize())


def _reachable(rule: Burn, budget: Decimal) -> Burn:
    limit = most(budget)
    if limit is None:
        return rule
    highest = max(Decimal(1), (limit * _REACHABLE).quantize(_CENT, ROUND_DOWN).normalize())
    if rule.factor <= highest:
        return rule
    return Burn(rule.long, rule.short, highest, rule.severity, asked=rule.factor)


def problem(rule: Burn, window: Window, budget: Decimal, min_count: int) -> str | None:
    """Return why *rule* could never say what it should, or None."""
    if not (rule.long.is_like(window) and rule.short.is_like(window)):
        kind = "so many outcomes (last: 20)" if window.last else "a time (1h)"
        return f"a burn's windows must be of the kind of the window, {kind}"
    if rule.short.size > rule.long.size:
        return f"its short window {rule.short.text} is longer than its long one; make it shorter"
    if rule.long.size > window.size:
        return (
            f"its long window {rule.long.text} is longer than the window {window.text}; shorten it"
        )
    if rule.long.last is not None and rule.long.last < min_count:
        return f"its long window holds fewer outcomes than min: {min_count}; make it longer"
    return blind(rule.long, budget) or _factor_problem(rule, budget)


def blind(window: Window, budget: Decimal) -> str | None:
    """Return why *window* can never show that more is bad than the *budget* allows, or None."""
    least = enough(budget)
    if window.last is None or window.last >= least:
        return None
    return (
        f"{window.last} bad outcomes of {window.last} do not make it sure that more than"
        f" {budget:f} is bad; it takes at least {least}"
    )


def _factor_problem(rule: Burn, budget: Decimal) -> str | None:
    limit = most(budget)
    if rule.factor <= 0:
        return "its factor must be more than 0, such as 14.4"
    if limit is None or rule.factor < limit:
        return None
    shown = shortened(limit)
    return (
        f"its factor {rule.factor:f} can never be reached: with everything bad the budget of"
        f" {budget:f} burns {shown} times as fast; choose a factor below {shown}"
    )
