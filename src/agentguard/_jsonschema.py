"""Contracts that come as JSON Schema, as MCP's do; validated by jsonschema-rs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from . import codec
from .canonical import jsonable
from .errors import ConfigurationError, ContractViolation

try:
    import jsonschema_rs
except ImportError as error:  # pragma: no cover - seen only without the extra
    raise ConfigurationError(
        'input_schema needs the extra: pip install "agentguard[jsonschema]"'
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def _validator(schema: Mapping[str, Any], tool: str) -> Any:
    try:
        return jsonschema_rs.validator_for(dict(schema))
    except (ValueError, jsonschema_rs.ValidationError) as error:
        raise ConfigurationError(f"{tool}: its schema is no JSON Schema: {error!s:.200}") from error


def _fits(validator: Any, value: Any, where: str) -> bool:
    """Hold *value* against a schema as it is, or else as the JSON that it stands for.

    Raises:
        ContractViolation: it has no JSON form.
    """
    jsonable(value, where)
    with contextlib.suppress(ValueError):  # an object of a type that JSON does not have
        if validator.is_valid(value):
            return True
    with contextlib.suppress(ValueError):
        return bool(validator.is_valid(to_jsonable_python(value)))
    return False


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse arguments that the schema does not name, unless it says itself what it wants of them."""
    open_ended = {"additionalProperties", "patternProperties", "unevaluatedProperties", "$ref"}
    combined = {"allOf", "anyOf", "oneOf"}
    if open_ended & schema.keys():
        return dict(schema)
    if combined & schema.keys():
        return {**schema, "unevaluatedProperties": False}
    return {**schema, "additionalProperties": False}


class SchemaArguments:
    """Arguments described by JSON Schema, passed by name."""

    def __init__(self, schema: Mapping[str, Any], tool: str, sensitive: frozenset[str]) -> None:
        self._tool, self._sensitive = tool, sensitive
        self._defaults = {
            name: part["default"]
            for name, part in schema.get("properties", {}).items()
            if isinstance(part, dict) and "default" in part
        }
        self._validator = _validator(_closed(schema), tool)

    def read(
        self, _instance: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return validated arguments.

        Raises:
            ContractViolation: they do not fit, or were given by position.
        """
        if args:
            raise ContractViolation(f"{self._tool} takes its arguments by name")
        return self.check(kwargs), {}

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return *values* validated.

        Raises:
            ContractViolation: they do not fit.
        """
        found = dict(values)
        if _fits(self._validator, found, self._tool):
            return found
        raise ContractViolation(self._sentence(to_jsonable_python(found, fallback=str)))

    def _sentence(self, plain: Mapping[str, Any]) -> str:
        """One sentence on the first problems; values are never quoted, they may be secret."""
        shown = []
        for problem in list(self._validator.iter_errors(plain))[:3]:
            place = ".".join(str(part) for part in problem.instance_path) or "arguments"
            shown.append(
                f"{place}: does not fit {problem.kind.name!r} of the schema{_names(problem)}"
            )
        return f"{self._tool}: " + "; ".join(shown)

    def place(
        self, _instance: Any, values: Mapping[str, Any], given: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return keyword arguments for the body."""
        return [], {**values, **given}

    def recall(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return some arguments from the plain JSON by which they were shown, which they are."""
        return dict(values)

    def write(self, values: Mapping[str, Any]) -> str:
        """Return JSON text from which `restore` makes equal values.

        Raises:
            NotStorable: there is none.
        """
        return codec.encode(dict(values)).decode()

    def restore(self, text: str) -> dict[str, Any]:
        """Return the values that `write` was given."""
        values: dict[str, Any] = codec.decode(text)
        return values


def _names(problem: Any) -> str:
    """Return which argument is missing or unknown; names are no secrets."""
    missing = getattr(problem.kind, "property", None)
    unknown = getattr(problem.kind, "unexpected", None)
    if missing:
        return f" ({missing} is missing)"
    return f" ({', '.join(unknown)} is unknown)" if unknown else ""


def problems_of(schema: Mapping[str, Any], name: str) -> Callable[[Any], list[str]]:
    """Return what tells where a value does not fit *schema*, in a few words without its values."""
    validator = _validator(schema, name)

    def problems(value: Any) -> list[str]:
        if _fits(validator, value, name):
            return []
        found = list(validator.iter_errors(to_jsonable_python(value, fallback=str)))[:3]
        return [
            f"{'.'.join(map(str, problem.instance_path)) or 'it'} does not fit"
            f" {problem.kind.name!r}{_names(problem)}"
            for problem in found
        ]

    return problems


def problem_of_edits(schema: Mapping[str, Any], edits: Mapping[str, Any]) -> str | None:
    """Return what is wrong with edited arguments, each looked at by itself, or None."""
    parts = schema.get("properties", {})
    for name, value in edits.items():
        if name not in parts:
            continue
        one = {"$defs": schema.get("$defs", {}), **parts[name]}
        if not _validator(one, name).is_valid(value):
            return f"{name} is no {parts[name].get('type', 'value of the declared kind')}"
    return None


class SchemaResults:
    """Results, checked against JSON Schema if the tool comes with one."""

    def __init__(self, schema: Mapping[str, Any] | None, tool: str) -> None:
        self._tool = tool
        self._validator = None if schema is None else _validator(schema, tool)

    def check(self, result: Any) -> Any:
        """Return the result.

        Raises:
            ContractViolation: it does not fit the schema.
        """
        if self._validator is None:
            return result
        if not _fits(self._validator, result, "result"):
            raise ContractViolation(f"{self._tool} returned something else than its schema says")
        return result

    def write(self, result: Any) -> str:
        """Return JSON text from which `restore` makes an equal result.

        Raises:
            NotStorable: there is none.
        """
        return codec.encode(result).decode()

    def keep(self, result: Any) -> str:
        """Like `write`, for the record.

        Raises:
            NotStorable: there is none, or it is too large.
        """
        return codec.limited(self.write(result))

    def restore(self, kept: str) -> Any:
        """Return the result that `keep` was given."""
        return codec.decode(kept.removeprefix("j"))
