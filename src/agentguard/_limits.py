"""Reads the limits that a run is given in code, over those of its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError
from .model import Limits, nanos

if TYPE_CHECKING:
    from collections.abc import Mapping


def limits_of(settings: Limits, given: Mapping[str, Any]) -> Limits:
    known = {"max_spend_usd": "max_spend", **{n: n for n in Limits.__dataclass_fields__}}
    del known["max_spend"]
    values = {name: getattr(settings, name) for name in Limits.__dataclass_fields__}
    for name, value in given.items():
        if name not in known:
            raise ConfigurationError(
                f"run has no limit {name!r}; it has {', '.join(sorted(known))}"
            )
        if value is None:
            continue
        values[known[name]] = _limit(name, value)
    return Limits(**values)


def _limit(name: str, value: Any) -> Any:
    if name == "loops":
        return _loops(value)
    if name == "max_spend_usd":
        return nanos(value)
    kinds = (int, float) if name == "max_seconds" else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds) or value < 0:
        raise ConfigurationError(f"{name}={value!r} is not a number from 0")
    return float(value) if name == "max_seconds" else value


def _loops(value: Any) -> int:
    if value is False or value in ("off", 0):
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 2:  # noqa: PLR2004 - once is no loop
        raise ConfigurationError(f'loops={value!r} is neither a number from 2 nor "off"')
    return value
