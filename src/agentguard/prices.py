"""What models cost, as far as anybody has said."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable


def pricing(prices: Any) -> Callable[[str, int, int], Decimal | None]:
    """Return what says the US dollars of a call: of model, input tokens and output tokens."""
    if prices is None:
        return lambda _model, _asked, _answered: None
    if callable(prices):
        return cast("Callable[[str, int, int], Decimal | None]", prices)
    table = {m: (Decimal(str(i)), Decimal(str(o))) for m, (i, o) in prices.items()}

    def price(model: str, asked: int, answered: int) -> Decimal | None:
        known = table.get(model)
        return None if known is None else (known[0] * asked + known[1] * answered) / 1_000_000

    return price
