"""Prices of the package genai-prices, which loads with the first price that is asked for."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ._price_values import Price
from .errors import ConfigurationError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from ._price_values import Tokens

NAME = "genai-prices"
_BEDROCK = re.compile(r"(?:[a-z-]+\.)+[a-z]")
_ALSO = {
    "azure_ai": "azure", "azure_openai": "azure", "bedrock_converse": "aws", "bedrock": "aws",
    "google_genai": "google", "google_vertexai": "google", "mistralai": "mistral",
    "vertexai": "google", "vertex_ai": "google", "xai": "x-ai",
}  # fmt: skip
"""What frameworks call providers, and what the price list does."""


class GenaiPrices:
    """Prices of the package genai-prices, at the time of the call."""

    def __init__(self) -> None:
        if find_spec("genai_prices") is None:
            raise ConfigurationError(
                'prices: genai-prices is not installed: pip install "agentguard[prices]", or give a'
                " table of your own"
            )
        self._names: dict[str, tuple[str | None, str] | None] = {}

    def price(self, model: str, tokens: Tokens, at: dt.datetime) -> Price | None:
        """Return what the package says; None for what it does not know."""
        import genai_prices

        name = self._named(model)
        if name is None:
            return None
        whole = tokens.whole()
        usage = genai_prices.Usage(
            input_tokens=whole.input, output_tokens=whole.output,
            cache_read_tokens=whole.cached, cache_write_tokens=whole.cache_write,
        )  # fmt: skip
        try:
            found: Any = genai_prices.calc_price(
                usage, name[1], provider_id=name[0], genai_request_timestamp=at
            )
        except (LookupError, ValueError):  # it knows the model, and no price for this usage
            return None
        return Price(found.total_price, NAME, _version(found))

    def _named(self, model: str) -> tuple[str | None, str] | None:
        """Return provider and name under which the package knows a model, if it does."""
        if model not in self._names:
            self._names[model] = next(filter(_is_known, _names(model)), None)
        return self._names[model]


def _version(found: Any) -> str:
    import genai_prices

    updated = getattr(found, "auto_update_timestamp", None)
    return genai_prices.__version__ + (f"+{updated:%Y%m%d%H%M}" if updated else "")


def _is_known(name: tuple[str | None, str]) -> bool:
    import genai_prices

    try:
        genai_prices.calc_price(genai_prices.Usage(), name[1], provider_id=name[0])
    except (LookupError, ValueError):
        return False
    return True


def _names(model: str) -> Iterator[tuple[str | None, str]]:
    """Yield provider and name as a model's name may mean them, the likeliest first.

    A prefix that names nobody whom the package knows is not left out: the same model costs nothing
    at home, and something else elsewhere.
    """
    name = model.strip().casefold().removeprefix("models/")
    if not name:
        return
    yield None, name
    for sign in (":", "/"):
        provider, found, rest = name.partition(sign)
        if found and provider and rest:
            yield _ALSO.get(provider, provider), rest.removeprefix("models/")
    if _BEDROCK.match(name):
        yield "aws", name
