"""How OpenSLO documents say what only we know: annotations, and what is written in them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Final, cast

from ..slos import Burn, Demotion, Window, span

if TYPE_CHECKING:
    from ..slos import Severity

VERSION: Final = "openslo/v1"
SOURCE: Final = "agentguard"
KIND: Final = "kind"
ALERTS: Final = "alertPolicies"
MIN: Final = "agentguard/min"
LAST: Final = "agentguard/last"
COUNTS: Final = "agentguard/counts"
ABANDONED: Final = "agentguard/abandoned"
DEMOTE: Final = "agentguard/demote"
BURN: Final = "agentguard/burn"
SHORT: Final = "agentguard/short-window"
NAMED: Final = frozenset({MIN, LAST, COUNTS, ABANDONED, DEMOTE, BURN})
"""The annotations of a document of the kind SLO that are read."""

_BURN: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)x([0-9]{1,9})/([0-9]{1,9}):(page|ticket)")
_NO_NAME: Final = re.compile(r"[^a-z0-9]+")


def slug(name: str) -> str:
    """Return *name* as the name of an OpenSLO object: small letters, digits, dashes."""
    return _NO_NAME.sub("-", name.lower()).strip("-")


def burn_text(rule: Burn) -> str:
    """Return a rule over outcomes as an annotation has it, such as `5x10/5:page`."""
    return f"{rule.factor:f}x{rule.long.last}/{rule.short.last}:{rule.severity}"


def burn_read(text: str) -> Burn | None:
    """Read what `burn_text` writes; None if it is something else."""
    match = _BURN.fullmatch(text)
    if match is None:
        return None
    factor, long, short, severity = match.groups()
    windows = Window(last=int(long)), Window(last=int(short))
    return Burn(*windows, Decimal(factor), cast("Severity", severity))


def demote_text(demotion: Demotion | None) -> str:
    """Return a demotion as an annotation has it, such as `burning=approve exhausted=draft`."""
    if demotion is None:
        return "off"
    after = None if demotion.restore_after is None else span(demotion.restore_after)
    good = None if demotion.restore_good is None else str(demotion.restore_good)
    parts = {"burning": demotion.burning, "exhausted": demotion.exhausted,
             "after": after, "good": good}  # fmt: skip
    return " ".join(f"{key}={value}" for key, value in parts.items() if value)
