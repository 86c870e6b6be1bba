"""What a model call used, what it cost, and the rates by which one follows from the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decimal import Decimal

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a model call used.

    Attributes:
        input: tokens of the question; cached ones and those written into the cache included.
        output: tokens of the answer.
        cached: of *input*, those that the provider had in its cache.
        cache_write: of *input*, those that it put there.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0

    def whole(self) -> Tokens:
        """Return it with an *input* that includes the cached ones.

        Some providers count those beside it; more cached tokens than there are show that.
        """
        beside = self.cached + self.cache_write
        if beside <= self.input:
            return self
        return Tokens(self.input + beside, self.output, self.cached, self.cache_write)


@dataclass(frozen=True, slots=True)
class Price:
    """What a model call costs, and who says so.

    Attributes:
        usd: US dollars.
        source: `table`, `callable`, `genai-prices`, or what a price list of your own calls itself.
        version: of the source: of a package, or a hash of the table; None if it has none.
    """

    usd: Decimal
    source: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """What a model costs, in US dollars per million tokens.

    Attributes:
        cached: of tokens that the provider had in its cache; None: as all input.
        cache_write: of tokens that it put there; None: as all input.
    """

    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    cache_write: Decimal | None = None

    def usd(self, tokens: Tokens) -> Decimal:
        """Return what so many tokens cost."""
        whole = tokens.whole()
        plain = whole.input - whole.cached - whole.cache_write
        cached = self.input if self.cached is None else self.cached
        written = self.input if self.cache_write is None else self.cache_write
        total = self.input * plain + cached * whole.cached + written * whole.cache_write
        return (total + self.output * whole.output) / _MILLION
