"""The verification room: who confirms that the outcome is what was meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ._verdicts import Check, check_of, in_order, least
from .declaration import declare
from .errors import ConfigurationError
from .tool import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import Settings
    from .declaration import F
    from .tool import Tool

Independence = Literal["rule", "model", "model+person"]


def verified_by(
    *checks: Callable[..., Any], by: str | None = None, require: Independence | None = None,
    minimum_confidence: Any = None, timeout: float | None = None,
) -> Callable[[F], F]:  # fmt: skip
    """Let verifiers confirm each outcome before it counts as a success.

    Rules are asked first, then models, people last; the first no ends the asking. An outcome that
    is not confirmed is in doubt, or undone if the tool has a compensation.

    Args:
        checks: each is called with `(arguments, result)`, or `(arguments, result, evidence)`, and
            returns a `Verdict`, a bool, or None for yes; an exception is a no.
        by: names the verifier in the record; the check's own name by default.
        require: how independent the verification must be at least: `rule`, `model` (another model
            than the proposer's) or `model+person` (and a person approves each call).
        minimum_confidence: from 0 to 1; a yes that is less sure counts as a no.
        timeout: seconds that each check may take; after them it counts as unavailable, a no.

    Raises:
        ConfigurationError: there is no check, or an option that does not fit.
    """
    minimum = least(minimum_confidence)
    if timeout is not None and timeout <= 0:
        raise ConfigurationError("verified_by: timeout is in seconds and above zero")
    if require not in (None, "rule", "model", "model+person"):
        raise ConfigurationError('verified_by: require is "rule", "model" or "model+person"')
    found = [check_of(check, by=by, minimum=minimum, timeout=timeout) for check in checks]
    if not found:
        raise ConfigurationError("verified_by: give at least one callable(arguments, result)")
    return lambda function: declare(function, Verification(tuple(in_order(found)), require))


@dataclass(frozen=True)
class Verification:
    """What `verified_by` declares."""

    checks: tuple[Check, ...]
    require: Independence | None

    @property
    def stage(self) -> Stage:
        """Last: it is about the outcome."""
        return Stage.VERIFICATION

    def bind(self, tool: Tool, _settings: Settings) -> None:
        """Write the checks on the sheet; who they are is looked at once the sheet is full.

        Raises:
            ConfigurationError: a check cannot be asked in this tool.
        """
        for check in self.checks:
            if not tool.is_async and check.is_async:
                raise ConfigurationError(f"{tool.name} is sync, so its verifiers must be sync")
            if check.evidence == "must" and tool.evidence is None:
                raise ConfigurationError(
                    f"{tool.name}: its verifier {check.name} takes evidence, and nobody reads any:"
                    " add evidence=reader to tool_contract"
                )
        tool.checks.extend(self.checks)
        tool.independence = self.require
