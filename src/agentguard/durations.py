"""Durations as people write them."""

from __future__ import annotations

import re

from .errors import ConfigurationError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str, what: str) -> float:
    """Return a duration written as `30s`, `15m`, `24h` or `30d` in seconds.

    Raises:
        ConfigurationError: it is written otherwise; the sentence calls it *what*.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", str(text))
    if match is None:
        raise ConfigurationError(
            f"{what}={text!r}: write a number and a unit, such as 30m, 24h or 30d"
        )
    return float(int(match[1]) * _UNITS[match[2]])
