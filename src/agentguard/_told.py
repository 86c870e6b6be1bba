"""What is learned of a call on its way, for its span and its metrics: told once, at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import Approval


@dataclass(slots=True)
class Told:
    """Facts of one guarded call that are known before its end.

    Attributes:
        approval: about which people were asked.
        escalated: why the call was put before people, if it was by this very call.
        granted: they have let it start, and it started for the first time.
        cost: what it cost, in nano-dollars, as far as it was reserved.
        verdicts: of its verifiers, of all attempts.
    """

    approval: Approval | None = None
    escalated: str | None = None
    granted: bool = False
    cost: int | None = None
    verdicts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
