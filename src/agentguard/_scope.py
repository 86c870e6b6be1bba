"""The instrumentation scope, and the rule that what breaks in telemetry reaches nobody's call."""

from __future__ import annotations

import logging

SCOPE = "agentguard"
VERSION = "0.1.0"  # as in pyproject.toml; to ask the installation takes as long as half of us

OPERATION = "gen_ai.operation.name"
TOOL_NAME = "gen_ai.tool.name"
WORKFLOW = "gen_ai.workflow.name"

_told: set[str] = set()


def broken(where: str, error: Exception) -> None:
    """Say once that a provider, processor or sampler of telemetry failed; the call goes on."""
    what = f"{where}: {type(error).__name__}"
    if what not in _told:
        _told.add(what)
        logging.getLogger(SCOPE).warning("telemetry failed in %s: %s; calls go on", where, error)
