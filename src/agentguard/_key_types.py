"""The types that keys of `agent_run.yaml` are made of: each refuses what it would not obey."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from .errors import ConfigurationError
from .expressions import MAX_LENGTH, compile_expression

_MOST_DOLLARS: Final = 9 * 10**9  # what fits into the store as nano-dollars
_MOST: Final = 10**18
_YEAR: Final = 366 * 24 * 3600
_DIGITS: Final = re.compile(r"0?\.[0-9]{1,12}")


def _number(value: object, most: int, example: str) -> int | Decimal:
    # A bool is an int to Python, and a float has already lost what the file says.
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        msg = f"must be a number without quotes, such as {example}"
    elif isinstance(value, Decimal) and not value.is_finite():
        msg = f"must be a finite number, such as {example}"
    elif not 0 <= value <= most:
        msg = f"must be from 0 to {most}"
    else:
        return value
    raise ValueError(msg)


def _money(value: object) -> Decimal:
    return Decimal(_number(value, _MOST_DOLLARS, "0.40"))


def _amount(value: object) -> Decimal:
    return Decimal(_number(value, _MOST, "50"))


def _share(value: object) -> Decimal:
    text = isinstance(value, str) and _DIGITS.fullmatch(value) is not None
    share = Decimal(value) if text else Decimal(_number(value, 1, "0.9"))  # type: ignore[arg-type] # a text
    if not 0 < share < 1:
        msg = "must be between 0 and 1, such as 0.9"
        raise ValueError(msg)
    return share


def _seconds(value: object) -> float:
    seconds = _number(value, _YEAR, "2.5")
    if not seconds:
        msg = "must be more than 0"
        raise ValueError(msg)
    return float(seconds)


def _pause(value: object) -> float:
    return float(_number(value, _YEAR, "0.2"))


def _cost(value: object) -> object:
    return value if isinstance(value, str) and value.isidentifier() else _money(value)


def _expression(text: str) -> str:
    try:
        return compile_expression(text, None).text
    except ConfigurationError as error:
        raise ValueError(error.message) from None


def numeric(most: int, **limits: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "number", "minimum": 0, "maximum": most, **limits})


OVER: Final = "_over"
"""What follows a fact's name in the key of its threshold."""
LOOKS: Final[dict[str, str]] = {}
"""What a text must look like, by the pattern that it did not match."""


def like(pattern: str, looks: str, longest: int = 100) -> Any:
    LOOKS[pattern] = looks
    return Field(pattern=pattern, max_length=longest)


Text = Annotated[str, like(r"^\S(.*\S)?$", "one line without blanks at its ends", 200)]
Word = Annotated[str, like(r"^[^\W\d]\w*$", "a name of letters, digits and _")]
Over = Annotated[str, like(r"^[^\W\d]\w*_over$", "<fact>_over, such as refund_usd_over: 50")]
Duration = Annotated[str, like(r"^[1-9][0-9]{0,5}[smhd]$", "90s, 30m, 24h or 7d")]
Rate = Annotated[str, like(r"^[1-9][0-9]{0,5}/(second|minute|hour|day)$", "5/second")]
Whole = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Money = Annotated[Decimal, BeforeValidator(_money), numeric(_MOST_DOLLARS)]
Amount = Annotated[Decimal, BeforeValidator(_amount), numeric(_MOST)]
Seconds = Annotated[float, BeforeValidator(_seconds), numeric(_YEAR, exclusiveMinimum=0)]
Level = Literal["draft", "propose", "approve", "auto"]
Share = Annotated[Decimal, BeforeValidator(_share), numeric(1)]
Dollars = Annotated[str, like(r"^[0-9]{1,9}(\.[0-9]{1,9})?$", 'an amount such as "50"')]
Pause = Annotated[float, BeforeValidator(_pause), numeric(_YEAR)]
Cost = Annotated[
    str | Decimal,
    BeforeValidator(_cost),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number", "minimum": 0}]}),
]
Rule = Annotated[str, Field(min_length=1, max_length=MAX_LENGTH), AfterValidator(_expression)]


def says(description: str, default: Any = None) -> Any:
    return Field(default=default, description=description)


class Keys(BaseModel):
    """Nothing unknown, nothing coerced; built when the first file is read, not at import."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)
