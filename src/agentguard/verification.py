"""The verification room: who confirms that the outcome is what was meant."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .declaration import declare
from .errors import ConfigurationError
from .tool import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import Settings
    from .declaration import F
    from .tool import Tool


def verified_by(*checks: Callable[..., Any], by: str | None = None) -> Callable[[F], F]:
    """Let verifiers confirm each outcome, in order, before it counts as a success.

    Args:
        checks: each is called with `(arguments, result)` and returns a `Verdict`, a bool, or None
            for yes; an exception is a no. An outcome that is not confirmed is in doubt.
        by: names the verifier in the record; the check's own name by default.

    Raises:
        ConfigurationError: there is no check.
    """
    if not checks or not all(callable(check) for check in checks):
        raise ConfigurationError("verified_by: give at least one callable(arguments, result)")
    return lambda function: declare(function, Verification(checks, by))


@dataclass(frozen=True)
class Verification:
    """What `verified_by` declares."""

    checks: tuple[Callable[..., Any], ...]
    by: str | None

    @property
    def stage(self) -> Stage:
        """Last: it is about the outcome."""
        return Stage.VERIFICATION

    def bind(self, tool: Tool, _settings: Settings) -> None:
        """Write the checks on the sheet."""
        for check in self.checks:
            if not tool.is_async and inspect.iscoroutinefunction(check):
                raise ConfigurationError(f"{tool.name} is sync, so its verifiers must be sync")
            name = self.by or str(getattr(check, "__name__", "verifier"))
            tool.checks.append((name, check))
