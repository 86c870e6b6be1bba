"""Says how far a share that was seen in few outcomes may lie from the share that holds."""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Final

DIGITS: Final = 50
"""With so many digits Decimals are counted where a division or a root does not end."""
TWO_SIDED: Final = Decimal("1.959964")
"""The 97.5 % point of the normal distribution: both bounds together hold with 95 %."""
ONE_SIDED: Final = Decimal("1.6448536269514722")
"""The 95 % point: each bound by itself holds with 95 %."""


@lru_cache(maxsize=1024)  # a judgement asks for the same few shares many times
def bounds(hits: int, count: int, z: Decimal = ONE_SIDED) -> tuple[Decimal, Decimal]:
    """Return Wilson's bounds of the share of which *hits* of *count* were seen.

    Without outcomes nothing is known: from 0 to 1.
    """
    if not count:
        return Decimal(0), Decimal(1)
    with localcontext() as exact:
        exact.prec = DIGITS
        z_squared = z * z
        n, share = Decimal(count), Decimal(hits) / count
        centre = share + z_squared / (2 * n)
        spread = (z_squared * (share * (1 - share) / n + z_squared / (4 * n * n))).sqrt()
        whole = 1 + z_squared / n
        low = Decimal(0) if not hits else max(Decimal(0), (centre - spread) / whole)
        high = Decimal(1) if hits == count else min(Decimal(1), (centre + spread) / whole)
        return low, high


def enough(share: Decimal) -> int:
    """Return the least number of which all must be hits to be sure that it is more than *share*."""
    with localcontext() as exact:
        exact.prec = DIGITS
        return int(ONE_SIDED * ONE_SIDED * share / (1 - share)) + 1  # all of n: n / (n + z²)
