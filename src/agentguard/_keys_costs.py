"""The keys under `costs`: what models and people's time cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ._key_types import Keys, Money, Text, says
from ._price_values import Rates
from .model import HumanCosts, nanos


class ModelPrice(Keys):
    """What a model costs, in US dollars per million tokens."""

    input_usd: Money = Field(description="A million tokens of questions.")
    output_usd: Money = Field(description="A million tokens of answers.")
    cached_usd: Money | None = says("A million tokens of questions that were in the cache.")
    cache_write_usd: Money | None = says("A million tokens that were put into the cache.")

    def rates(self) -> Rates:
        """Return it as the value that prices are made of."""
        return Rates(self.input_usd, self.output_usd, self.cached_usd, self.cache_write_usd)


class Costs(Keys):
    """What models and people's time cost."""

    human_usd_per_hour: Money | None = says("US dollars for an hour of a person's time.")
    minutes_per_decision: Money | None = says("Minutes that a decision on a waiting call takes.")
    prices: Literal["genai-prices"] | None = says("The list that says what models cost.")
    models: dict[Text, ModelPrice] = says("By model: what it costs; comes before the list.", {})

    def human(self) -> HumanCosts:
        """Return it as the value that decisions are counted by."""
        rate = self.human_usd_per_hour
        return HumanCosts(None if rate is None else nanos(rate), self.minutes_per_decision)

    def rates(self) -> dict[str, Rates]:
        """Return the models with their prices."""
        return {name: price.rates() for name, price in self.models.items()}
