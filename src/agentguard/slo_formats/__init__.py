"""Service levels in the formats of other tools: each says what it could not carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError
from ._exported import Exported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..slos import Slo

__all__ = ["FORMATS", "Exported", "export"]

FORMATS: Final = ("openslo", "prometheus", "grafana", "sloth")


def export(slos: Sequence[Slo], to: str) -> Exported:
    """Return *slos* in the format *to*, one of `FORMATS`.

    Raises:
        ConfigurationError: there are none, or the format can carry none of them.
    """
    from . import grafana, openslo, prometheus, sloth

    if not slos:
        raise ConfigurationError("there are no service levels; write slos: under agent_run:")
    formats = {"openslo": openslo.written, "prometheus": prometheus.written,
               "grafana": grafana.written, "sloth": sloth.written}  # fmt: skip
    if to not in formats:
        raise ConfigurationError(f"the format {to!r} is not known; known: {', '.join(FORMATS)}")
    return formats[to](slos)
