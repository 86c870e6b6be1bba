"""Templates: named, parameterised sequences of calls, which take the place of free choice of tools."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .errors import ConfigurationError
from .expressions import suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    class Parameters(Protocol):
        """What is known of a tool."""

        parameters: tuple[str, ...]


_NAME = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class Template:
    """A named sequence of calls; a text `{parameter}` in it is that parameter's value.

    Args:
        name: what `run.follow` takes.
        steps: dicts with `tool`, `arguments` and, if need be, `repeat`.
        parameters: what has to be given to follow it.

    Raises:
        ConfigurationError: a placeholder is no parameter, or a parameter stands nowhere.
    """

    name: str
    steps: Sequence[Mapping[str, Any]]
    parameters: Sequence[str] = ()

    def __post_init__(self) -> None:
        for problem in problems_of(self.steps, self.parameters):
            raise ConfigurationError(f"template {self.name}: {problem}")

    def fill(self, **values: Any) -> list[dict[str, Any]]:
        """Return the steps with the *values* of its parameters.

        Raises:
            ConfigurationError: a value is missing, or one is no parameter.
        """
        missing = [name for name in self.parameters if name not in values]
        unknown = [name for name in values if name not in self.parameters]
        if missing or unknown:
            has = ", ".join(self.parameters) or "none"
            said = f"needs {', '.join(missing)}" if missing else f"has no {', '.join(unknown)}"
            raise ConfigurationError(f"template {self.name} {said}; its parameters are: {has}")
        return [
            {**step, "arguments": _filled(dict(step.get("arguments", {})), values)}
            for step in self.steps
        ]


def bare(template: Template) -> list[dict[str, Any]]:
    """Return the steps of a template without the arguments that its parameters fill."""
    return [
        {**step, "arguments": {
            name: _filled(value, {}) for name, value in step.get("arguments", {}).items()
            if not list(_placeholders(value))
        }}
        for step in template.steps
    ]  # fmt: skip


def problems_of(steps: Sequence[Mapping[str, Any]], parameters: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with a template, one sentence each."""
    if not steps:
        yield "it has no steps; name the tools that are to be called"
    used: set[str] = set()
    for number, step in enumerate(steps, 1):
        try:
            used |= set(_placeholders(step.get("arguments", {})))
        except ValueError as error:
            yield f"step {number}: {error}; write {{{{ and }}}} for braces that are meant as such"
    for name in sorted(used.difference(parameters)):
        mend = suggestion(name, parameters) or "; add it to parameters"
        yield f"{{{name}}} is none of its parameters{mend}"
    for name in parameters:
        if name not in used:
            yield f"the parameter {name} stands in no step; use it or remove it"


def _placeholders(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        for _, name, spec, conversion in string.Formatter().parse(value):
            if name is None:
                continue
            if not _NAME.fullmatch(name) or spec or conversion:
                raise ValueError(f"{value!r} holds more than the name of a parameter in braces")
            yield name
        return
    items = value.values() if hasattr(value, "values") else value
    for item in items if isinstance(value, list | tuple) or hasattr(value, "values") else ():
        yield from _placeholders(item)


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, values) for item in value]
    if not isinstance(value, str):
        return value
    alone = value[1:-1] if value[:1] == "{" and value[-1:] == "}" else ""
    return values[alone] if alone in values else value.format(**values)


def collected(configured: Mapping[str, Template], given: Iterable[Template]) -> dict[str, Template]:
    """Return the templates of the configuration and of the code, by name.

    Raises:
        ConfigurationError: two have one name.
    """
    found = dict(configured)
    for template in given:
        if template.name in found:
            raise ConfigurationError(f"there are two templates {template.name!r}; rename one")
        found[template.name] = template
    return found


def misfits(
    templates: Iterable[Template], tools: Mapping[str, Parameters], where: Callable[[str], str]
) -> Iterator[str]:
    """Yield what is wrong with *templates* where the tools are known.

    Args:
        templates: those to be looked at.
        tools: the sheets by name.
        where: file and line of a template's step, if it stands in a file.
    """
    for template in templates:
        for number, step in enumerate(template.steps):
            place = where(f"templates.{template.name}.steps.{number}.tool")
            for problem in _misfit(step, tools):
                yield f"{place}template {template.name} {problem}"


def _misfit(step: Mapping[str, Any], tools: Mapping[str, Parameters]) -> Iterator[str]:
    name = step["tool"]
    if not isinstance(name, str):
        return
    if name not in tools:
        mend = suggestion(name, tools) or "; give it to the check, or correct the name"
        yield f"calls {name!r}, which is no tool here{mend}"
        return
    has = tools[name].parameters
    for argument in step.get("arguments", {}):
        if argument not in has:
            yield f"gives {name} the argument {argument!r}; it has {', '.join(has) or 'none'}"
