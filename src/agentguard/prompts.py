"""Which prompt a model was asked with: its name and version, for the record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import ConfigurationError

_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as its authors name it.

    Attributes:
        name: such as `support/answer`.
        version: such as `7` or a commit; None if nobody says.
    """

    name: str
    version: str | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


def prompt_of(given: Any) -> Prompt | None:
    """Return what somebody gave as a prompt: a `Prompt`, its name, or (name, version).

    Raises:
        ConfigurationError: it is none of these.
    """
    if given is None or isinstance(given, Prompt):
        return given
    pair = (given, None) if isinstance(given, str) else given
    try:
        name, version = pair
    except (TypeError, ValueError):
        name = version = None
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError(
            f"prompt={given!r}: give a name, (name, version) or agentguard.prompts.Prompt"
        )
    return Prompt(name[:_LONGEST], None if version is None else str(version)[:_LONGEST])
