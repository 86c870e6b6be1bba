"""Policy given as options or in the configuration, for tools one cannot decorate."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ._signature import is_async
from .approval import requires_approval
from .budget import budget
from .compensation import compensated_by
from .contract import schema_contract, tool_contract
from .declaration import declare
from .errors import ConfigurationError
from .fallback import as_fallback
from .idempotency import idempotent
from .verification import verified_by

if TYPE_CHECKING:
    from ._keys import ToolPolicy

_SECTIONS: dict[str, Callable[..., Any]] = {
    "idempotency": idempotent,
    "approval": requires_approval,
    "budget": budget,
}
_DECORATORS: tuple[Callable[..., Any], ...] = (tool_contract, *_SECTIONS.values())


def apply_policy(
    guarded: Any, tool: str, options: Mapping[str, Any], section: ToolPolicy | None, *,
    input_schema: Mapping[str, Any] | None = None, output_schema: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Declare on *guarded* what *options* in code, or else *section* of the file, say.

    Options are those of the decorators, flat, or nested under `idempotency`, `approval` and
    `budget` as in YAML.

    Raises:
        ConfigurationError: an option that no decorator has, or none that says what the tool does.
    """
    merged = {**(_of_section(section) if section is not None else {}), **options}
    if "effect" not in merged:
        raise ConfigurationError(
            f'{tool}: say what it does: effect="read" or "write", here or under tools: in the file'
        )
    checks = merged.pop("verified_by", ())
    undo = merged.pop("compensated_by", None)
    fallback = as_fallback(merged.pop("falls_back_to", None))
    grouped = _grouped(tool, merged)
    contract = grouped.pop(tool_contract)
    if is_async(guarded):  # tools in two colours have one policy; this one is cancelled instead
        contract.pop("isolation", None)
    schema_contract(input_schema, output_schema, **contract)(guarded)
    for decorate, given in grouped.items():
        decorate(**given)(guarded)
    if checks:
        _verification(tool, checks)(guarded)
    if undo is not None:
        _compensation(tool, undo)(guarded)
    if fallback is not None:
        declare(guarded, fallback)


def _compensation(tool: str, given: Any) -> Callable[..., Any]:
    """Return `compensated_by` as it was given: an undo, or its options with it."""
    options = dict(given) if isinstance(given, Mapping) else {"undo": given}
    wrong = options.keys() - inspect.signature(compensated_by).parameters.keys()
    if wrong or "undo" not in options:
        named = f"has no option {min(wrong)!r}" if wrong else "needs undo"
        raise ConfigurationError(f"{tool}: compensated_by {named}")
    return compensated_by(**options)


def _verification(tool: str, given: Any) -> Callable[..., Any]:
    """Return `verified_by` as it was given: a check, several, or its options with them."""
    options = dict(given) if isinstance(given, Mapping) else {"checks": given}
    checks = options.pop("checks", ())
    wrong = options.keys() - inspect.signature(verified_by).parameters.keys()
    if wrong:
        raise ConfigurationError(f"{tool}: verified_by has no option {min(wrong)!r}")
    return verified_by(*([checks] if callable(checks) else checks), **options)


def _grouped(tool: str, options: Mapping[str, Any]) -> dict[Callable[..., Any], dict[str, Any]]:
    grouped: dict[Callable[..., Any], dict[str, Any]] = {tool_contract: {"name": tool}}
    for name, value in options.items():
        if name in _SECTIONS and isinstance(value, Mapping):
            grouped.setdefault(_SECTIONS[name], {}).update(value)
        else:
            grouped.setdefault(_owner(tool, name), {})[name] = value
    return grouped


def _owner(tool: str, option: str) -> Callable[..., Any]:
    for decorate in _DECORATORS:
        if option in inspect.signature(decorate).parameters:
            return decorate
    known = sorted({name for d in _DECORATORS for name in inspect.signature(d).parameters})
    raise ConfigurationError(f"{tool}: there is no option {option!r}; there are {', '.join(known)}")


def _of_section(section: ToolPolicy) -> dict[str, Any]:
    """Return a section of the file as the options it stands for."""
    options: dict[str, Any] = {
        name: getattr(section, name) for name in type(section).model_fields
        if name not in _SECTIONS and name in section.model_fields_set
    }  # fmt: skip
    if section.retry is not None:
        options["retry"] = section.retry.retry()
    for name in _SECTIONS:
        nested = getattr(section, name)
        if nested is not None:
            options[name] = {k: getattr(nested, k) for k in nested.model_fields_set}
    return options
