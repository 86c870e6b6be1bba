"""What every format gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Exported:
    """A file for another tool.

    Attributes:
        text: what to write into it.
        left_out: a sentence for each service level that the format cannot carry.
    """

    text: str
    left_out: tuple[str, ...] = ()


def nothing_left(left_out: Sequence[str]) -> ConfigurationError:
    """Return the error for a format that can carry none of the service levels."""
    return ConfigurationError("nothing to export: " + "\n".join(left_out))
