"""What models cost, as far as anybody has said; what nobody said is unknown, never zero."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from ._genai_prices import NAME, GenaiPrices
from ._price_values import Price, Rates, Tokens
from .canonical import dumps
from .errors import ConfigurationError
from .model import nanos

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .protocols import Clock

__all__ = [
    "Price", "Prices", "Rates", "Table", "Tokens", "genai_prices", "price_now", "prices_of", "pricing",
]  # fmt: skip
_KEYS = ("input_usd", "output_usd", "cached_usd", "cache_write_usd")
_INPUT_AND_OUTPUT = 2
_FORM = "(input, output), such as ('2.50', '10'), in US dollars per million tokens"


@runtime_checkable
class Prices(Protocol):
    """A price list."""

    def price(self, model: str, tokens: Tokens, at: dt.datetime) -> Price | None:
        """Return what a call of *model* at this time costs; None if that is not known."""
        ...


class Table:
    """Prices that somebody wrote down, by model.

    A model is found by its name as it stands, else by its name without a provider's prefix, if all
    entries of that name agree. Dates are part of a name: another snapshot may cost something else.
    """

    def __init__(self, rates: Mapping[str, Rates]) -> None:
        self._rates = dict(rates)
        self._bare: dict[str, set[Rates]] = {}
        for model, found in self._rates.items():
            self._bare.setdefault(bare(model), set()).add(found)
        plain = {m: [None if r is None else f"{r.normalize():f}" for r in _all(found)]
                 for m, found in self._rates.items()}  # fmt: skip
        self.version = hashlib.sha256(dumps(plain).encode()).hexdigest()[:12]

    def price(self, model: str, tokens: Tokens, at: dt.datetime) -> Price | None:  # noqa: ARG002 - written down once
        """Return what a call of *model* costs by this table."""
        rates = self._rates.get(model) or self._agreed(model)
        return None if rates is None else Price(rates.usd(tokens), "table", self.version)

    def _agreed(self, model: str) -> Rates | None:
        found = self._bare.get(bare(model), set())
        return next(iter(found)) if len(found) == 1 else None


def bare(model: str) -> str:
    """Return a model's name without what says who serves it: `openai:`, `openai/`, `models/`."""
    name = model.strip().casefold()
    return name[len(found[0]) :] if (found := _PREFIXES.match(name)) else name


_SERVERS = (
    "anthropic aws azure azure_ai azure_openai bedrock bedrock_converse cohere deepseek fireworks"
    " google google_anthropic_vertex google_genai google_vertexai groq mistral mistralai openai"
    " openrouter perplexity together vertexai vertex_ai xai models"
)
_PREFIXES = re.compile(rf"(?:(?:{'|'.join(_SERVERS.split())})[:/](?=.))+")
"""What stands before a model's name where it says who serves it; `ollama:` is another model."""


def _all(rates: Rates) -> tuple[Decimal | None, ...]:
    return rates.input, rates.output, rates.cached, rates.cache_write


@dataclass(frozen=True, slots=True)
class Called:
    """Prices by a callable: model, input tokens and output tokens to US dollars, or None."""

    function: Callable[[str, int, int], Decimal | int | str | None]

    def price(self, model: str, tokens: Tokens, at: dt.datetime) -> Price | None:  # noqa: ARG002 - it is not told
        """Return what the callable says."""
        said = self.function(model, tokens.input, tokens.output)
        if said is None:
            return None
        try:
            return Price(said if isinstance(said, Decimal) else Decimal(str(said)), "callable")
        except ArithmeticError:
            raise _no_amount("callable", model, said) from None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Prices of nobody: none is known."""

    def price(self, model: str, tokens: Tokens, at: dt.datetime) -> Price | None:  # noqa: ARG002 - whatever it is
        """Return None."""
        return None


@dataclass(frozen=True, slots=True)
class Chain:
    """Price lists one after the other: the first that knows a model says its price."""

    lists: Sequence[Prices]

    def price(self, model: str, tokens: Tokens, at: dt.datetime) -> Price | None:
        """Return what the first list says that says anything."""
        for one in self.lists:
            found = one.price(model, tokens, at)
            if found is not None:
                return found
        return None


def genai_prices() -> Prices:
    """Return the price list of the package genai-prices: about 50 providers, with their history.

    Its data come with the package and load with the first price; nothing is fetched.

    Raises:
        ConfigurationError: it is not installed.
    """
    return GenaiPrices()


def pricing(given: Any) -> Prices:
    """Return the price list that somebody gave to a guard.

    Args:
        given: a table, a callable, a `Prices`, the string `genai-prices`, or None.

    Raises:
        ConfigurationError: it is none of these.
    """
    if given is None:
        return Unknown()
    if isinstance(given, str):
        if given != NAME:
            raise ConfigurationError(f"prices={given!r}: the one list with a name is genai-prices")
        return genai_prices()
    if isinstance(given, Mapping):
        table: Mapping[Any, Any] = given
        return Table({str(model): _rates(model, rates) for model, rates in table.items()})
    if isinstance(given, Prices):
        return given
    if callable(given):
        return Called(cast("Callable[..., Any]", given))
    raise ConfigurationError(
        f"prices={given!r}: give a mapping of model to {_FORM}, a callable (model, input tokens,"
        " output tokens), an agentguard.prices.Prices, or 'genai-prices'"
    )


def prices_of(given: Any, named: str | None, models: Mapping[str, Rates]) -> Prices:
    """Return the prices of a guard: what its code gives, else what its configuration says.

    Args:
        given: as in `pricing`.
        named: the list that the configuration names.
        models: the table of the configuration; it comes before that list.
    """
    if given is not None or not (named or models):
        return pricing(given)
    return Chain(tuple(_said(named, models)))


def price_now(prices: Prices, clock: Clock, model: str, tokens: Tokens) -> Price | None:
    """Return what a call of *model* costs by this clock, if that is known.

    Raises:
        ConfigurationError: the price list says what is no amount.
    """
    at = dt.datetime.fromtimestamp(clock.now() / 1_000_000, dt.UTC)
    found = prices.price(model, tokens, at)
    if found is not None:
        try:
            nanos(found.usd)
        except ConfigurationError:
            raise _no_amount(found.source, model, found.usd) from None
    return found


def _no_amount(source: str, model: str, said: Any) -> ConfigurationError:
    return ConfigurationError(
        f"prices: {source} says {said!r} for {model}; say US dollars from 0, or None where the price is"
        " not known"
    )


def _said(named: str | None, models: Mapping[str, Rates]) -> Iterator[Prices]:
    if models:
        yield Table(models)
    if named:
        yield pricing(named)


def _rates(model: Any, given: Any) -> Rates:
    if isinstance(given, Rates):
        return given
    try:
        rates = _dollars(given)
        for rate in rates:
            if rate is not None:
                nanos(rate)
        return Rates(*rates)  # type: ignore[arg-type] # `_dollars` gives the first two
    except (ArithmeticError, TypeError, ValueError, ConfigurationError):
        raise ConfigurationError(f"prices: {model!r}: {given!r} is not {_FORM}") from None


def _dollars(given: Any) -> list[Decimal | None]:
    values: list[Any] = list(given)
    if isinstance(given, Mapping):
        if not {"input_usd", "output_usd"} <= set(values) <= set(_KEYS):
            raise ValueError
        values = [cast("Mapping[str, Any]", given).get(key) for key in _KEYS]
    if isinstance(given, str) or not _INPUT_AND_OUTPUT <= len(values) <= len(_KEYS):
        raise ValueError
    if None in values[:_INPUT_AND_OUTPUT]:
        raise ValueError
    return [None if value is None else Decimal(str(value)) for value in values]
