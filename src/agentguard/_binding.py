"""Binds a declared tool: every room fills in its part of the sheet, under one configuration."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

from ._independence import separate
from .approval import ApprovalPolicy, add_thresholds
from .canonical import dumps, sha256
from .errors import ConfigurationError
from .tool import Stage, Tool

if TYPE_CHECKING:
    from .config import Settings
    from .declaration import Declaration


def bound(declaration: Declaration, settings: Settings) -> Tool:
    tool = Tool(
        name=declaration.name, function=declaration.function, is_async=declaration.is_async,
        arguments=None, results=None,  # type: ignore[arg-type] # the contract fills them in
    )  # fmt: skip
    if Stage.CONTRACT not in declaration.policies:
        raise ConfigurationError(
            f'{tool.name} has no contract: add @tool_contract(effect="read") or effect="write"'
        )
    for _, policy in sorted(declaration.policies.items()):
        policy.bind(tool, settings)
    own = declaration.policies.get(Stage.APPROVAL)
    add_thresholds(tool, settings, own if isinstance(own, ApprovalPolicy) else None)
    always = isinstance(own, ApprovalPolicy) and own.when is None
    separate(tool, settings, asks_always=always)
    if tool.effect == "write" and tool.key_of is None:
        raise ConfigurationError(
            f"{tool.name} writes but has no idempotency key: add @idempotent(key=...) over the arguments"
            ' that name the intent, or @idempotent(per="call")'
        )
    tool.policy = f"{settings.version}:{_fingerprint(declaration)}"
    return tool


def _fingerprint(declaration: Declaration) -> str:
    """Eight characters that change when the tool's own approval rule does."""
    own = declaration.policies.get(Stage.APPROVAL)
    shape = [getattr(own, n, None) for n in ("when", "roles", "quorum", "expires", "allow_edit")]
    return sha256(dumps([_source(item) for item in shape]).encode()).hex()[:8]


def _source(item: Any) -> str:
    """Return what tells two rules apart, the same in every process: for a callable, its text."""
    if not callable(item):
        return str(item)
    with contextlib.suppress(OSError, TypeError):  # no source, or none that Python can find
        return inspect.getsource(item)
    return f"{item.__module__}.{getattr(item, '__qualname__', type(item).__qualname__)}"
