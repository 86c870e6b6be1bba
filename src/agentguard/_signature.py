"""A function's signature as a contract: arguments through pydantic, whatever the runtime passes.

Runtimes call the same tool with defaults filled or not, coerced or not, by position or by name.
Here they all become the same validated arguments.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import types
import typing
from dataclasses import make_dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired
from uuid import UUID

from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from typing_extensions import TypedDict, is_typeddict

from . import codec
from .canonical import jsonable
from .errors import ConfigurationError, ContractViolation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_INJECTED: list[Callable[[inspect.Parameter], bool]] = []
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_LOOSE = (Any, inspect.Parameter.empty, dict, list, tuple, set, object)


def register_injected(predicate: Callable[[inspect.Parameter], bool]) -> None:
    """Teach agentguard which parameters an agent runtime fills in itself.

    They are no arguments of the model's call: they stay out of validation, hashes, approvals and
    the record. Adapters call this once, at import; *predicate* gets the parameter with its
    annotation resolved.
    """
    if predicate not in _INJECTED:
        _INJECTED.append(predicate)


def annotated_as(*kinds: Any) -> Callable[[inspect.Parameter], bool]:
    """Return the predicate of parameters whose annotation is, holds or is marked by one of *kinds*.

    `Kind`, `Kind | None`, `Annotated[str, Kind]` and `Annotated[str, Kind(...)]` all count.
    """
    classes = tuple(kind for kind in kinds if not is_typeddict(kind))

    def marks(mark: Any) -> bool:
        named = any(mark is kind for kind in kinds)
        return named or isinstance(mark, classes) or _is_subclass(mark, classes)

    def found(annotation: Any) -> bool:
        origin = typing.get_origin(annotation)
        if origin is Annotated:
            return any(map(marks, annotation.__metadata__)) or found(annotation.__origin__)
        if origin in (typing.Union, types.UnionType):
            return any(map(found, typing.get_args(annotation)))
        return marks(origin or annotation)

    return lambda parameter: found(parameter.annotation)


def _is_subclass(mark: Any, classes: tuple[type, ...]) -> bool:
    return inspect.isclass(mark) and issubclass(mark, classes)


def is_async(function: Any) -> bool:
    """Return whether calling *function* gives an awaitable."""
    return inspect.iscoroutinefunction(getattr(function, "__func__", function))


def names_of(function: Any) -> list[str] | None:
    """Return a function's parameters without a method's receiver; None if it takes any keyword."""
    inner = getattr(function, "__func__", function)
    inner = getattr(inner, "__wrapped__", inner)
    parameters = inspect.signature(inner).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    names = list(parameters)
    return names[1:] if _has_receiver(_plain(inner), names) else names


def _has_receiver(function: Any, parameters: Sequence[str]) -> bool:
    qualified = getattr(function, "__qualname__", "").rpartition("<locals>.")[2]
    return "." in qualified and bool(parameters) and parameters[0] in ("self", "cls")


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(_plain(function), include_extras=True)
    except (NameError, TypeError, AttributeError):
        return dict(getattr(_plain(function), "__annotations__", {}))


def _plain(function: Any) -> Any:
    return function.func if isinstance(function, functools.partial) else function


class Signature:
    """Arguments of a plain function."""

    def __init__(
        self, function: Any, tool: str, sensitive: frozenset[str], *, strict: bool
    ) -> None:
        self._tool, self._sensitive = tool, sensitive
        signature, hints = inspect.signature(function), _hints(function)
        parameters = [
            p.replace(annotation=hints.get(p.name, p.annotation))
            for p in signature.parameters.values()
        ]
        self._receiver = _has_receiver(_plain(function), [p.name for p in parameters])
        own = parameters[1:] if self._receiver else parameters
        for parameter in own:
            _refuse_variadic(parameter, tool)
        self._injected = frozenset(p.name for p in own if any(is_it(p) for is_it in _INJECTED))
        self._positions = tuple(p.name for p in own if p.kind in _POSITIONAL)
        self._only_positions = tuple(p.name for p in own if p.kind is _POSITIONAL[0])
        asked = [p for p in own if p.name not in self._injected]
        self.names = tuple(p.name for p in asked)
        self._defaults = {
            p.name: p.default for p in asked
            if p.default is not p.empty and not _is_field(p.default)
        }  # fmt: skip
        self._adapter = _adapter(asked, tool, strict=strict)
        self._annotations = {p.name: p.annotation for p in asked}
        self._written: dict[str, TypeAdapter[Any] | None] = {}

    def read(
        self, instance: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return validated arguments and what the runtime gave besides.

        Raises:
            ContractViolation: they do not fit.
        """
        given: dict[str, Any] = {}
        if self._receiver and instance is None and args:
            given[""], args = args[0], args[1:]
        values = {**kwargs}
        if args:
            self._place_positions(args, values)
        if self._injected:
            for name in self._injected & values.keys():
                given[name] = values.pop(name)
        return self.check(values), given

    def _place_positions(self, args: Sequence[Any], values: dict[str, Any]) -> None:
        if len(args) > len(self._positions):
            raise ContractViolation(
                f"{self._tool} takes {len(self._positions)} arguments by position, {len(args)} were given"
            )
        for name, value in zip(self._positions, args, strict=False):
            if name in values:
                raise ContractViolation(f"{self._tool}: the argument {name} was given twice")
            values[name] = value

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return *values* validated, with defaults filled in.

        Raises:
            ContractViolation: they do not fit.
        """
        try:
            checked: dict[str, Any] = self._adapter.validator.validate_python({**values})
        except ValidationError as error:
            raise ContractViolation(self._sentence(error)) from None
        except UnicodeEncodeError:
            raise ContractViolation(
                f"{self._tool}: a text contains a lone surrogate, which no encoding can carry; remove it"
            ) from None
        for name, default in self._defaults.items():
            checked.setdefault(name, default)
        return checked

    def _sentence(self, error: ValidationError) -> str:
        """One sentence on the first problems; values are never quoted, they may be secret."""
        shown = []
        for problem in error.errors(include_input=False, include_url=False, include_context=False)[
            :3
        ]:
            place = ".".join(str(part) for part in problem["loc"]) or "arguments"
            hidden = problem["loc"] and str(problem["loc"][0]) in self._sensitive
            said = "does not fit" if hidden else _said(problem["type"], problem["msg"])
            shown.append(f"{place}: {said}")
        return f"{self._tool}: " + "; ".join(shown)

    def place(
        self, instance: Any, values: Mapping[str, Any], given: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and keyword arguments for the body."""
        del instance
        kwargs = {**values, **given}
        args = [kwargs.pop("")] if "" in kwargs else []
        if self._only_positions:
            args += [kwargs.pop(name) for name in self._only_positions if name in kwargs]
        return args, kwargs

    def write(self, values: Mapping[str, Any]) -> str:
        """Return JSON text from which `restore` makes equal values.

        Raises:
            NotStorable: there is none.
        """
        return json.dumps({name: _write(self._alone(name), it) for name, it in values.items()})

    def restore(self, text: str) -> dict[str, Any]:
        """Return the values that `write` was given."""
        return {name: _restore(self._alone(name), it) for name, it in json.loads(text).items()}

    def recall(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return some arguments as they were, from the plain JSON by which they were shown.

        Raises:
            ContractViolation: that is not what this argument was.
        """
        return {name: self._recalled(name, shown) for name, shown in values.items()}

    def _recalled(self, name: str, shown: Any) -> Any:
        adapter = self._alone(name)
        try:
            value = shown if adapter is None else adapter.validate_json(json.dumps(shown))
            same = jsonable(value) == shown
        except Exception:  # noqa: BLE001 - any type's own failure means: not from this
            value, same = None, False
        if not same:
            raise ContractViolation(
                f"{self._tool}: what the argument {name} was cannot be told from its record"
            )
        return value

    def _alone(self, name: str) -> TypeAdapter[Any] | None:
        """Return what writes and reads one argument: not every type goes the same way."""
        if name not in self._written:
            self._written[name] = _typed(self._annotations[name])
        return self._written[name]

    def schema(self) -> dict[str, Any] | None:
        """Return JSON Schema of the arguments, or None if they have none."""
        try:
            return self._adapter.json_schema()
        except PydanticUserError:
            return None


def _is_field(default: Any) -> bool:
    from pydantic.fields import FieldInfo  # loads half of pydantic

    return isinstance(default, FieldInfo)


@functools.cache
def load() -> None:
    """Have pydantic load and set up all that it does with the first types of the usual kinds.

    A thread that did so amid a fork would leave a lock to the child for ever: that of an import, or
    one of the compiled half's.
    """
    kinds = {
        "text": str, "number": int, "part": float, "switch": bool, "raw": bytes, "money": Decimal,
        "day": date, "moment": datetime, "id": UUID, "items": list[str], "table": dict[str, Any],
        "choice": Literal["a"], "optional": str | None, "one_of": int | str, "anything": Any,
        "record": make_dataclass("Record", [("text", str)]), "model": create_model("Model", text=str),
    }  # fmt: skip
    asked = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
        for name, kind in kinds.items()
    ]
    adapter = _adapter(asked, "load", strict=False)
    adapter.json_schema()
    with contextlib.suppress(ValidationError):
        adapter.validate_python({})
    _typed(str)


def _refuse_variadic(parameter: inspect.Parameter, tool: str) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise ConfigurationError(
            f"{tool}: *{parameter.name} has no schema; name the arguments, or use Guard.protect with"
            " input_schema="
        )


def _said(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "the tool has no such argument; leave it out"
    if kind == "missing":
        return "this argument is missing; give it"
    return message[0].lower() + message[1:]


def _adapter(asked: Sequence[inspect.Parameter], tool: str, *, strict: bool) -> TypeAdapter[Any]:
    fields: dict[str, Any] = {}
    for parameter in asked:
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        if _is_field(parameter.default):
            annotation = Annotated[annotation, parameter.default]
            required = parameter.default.is_required()
        else:
            required = parameter.default is parameter.empty
        fields[parameter.name] = annotation if required else NotRequired[annotation]
    make: Any = TypedDict  # the checkers know only shapes that are written down
    shape = make(f"{tool}_arguments", fields)
    shape.__pydantic_config__ = ConfigDict(
        extra="forbid", strict=strict, allow_inf_nan=False, arbitrary_types_allowed=True
    )
    try:
        adapter = TypeAdapter(shape)
        adapter.rebuild()  # a name that nothing defines is an error here, not at the first call
    except (PydanticUserError, NameError, TypeError) as error:
        said = str(error).partition("\n")[0]
        mend = (
            "; import it for real, not under TYPE_CHECKING" if isinstance(error, NameError) else ""
        )
        raise ConfigurationError(
            f"{tool}: its arguments cannot be checked: {said}{mend}"
        ) from error
    return adapter


class Returned:
    """A tool's result as its return annotation says."""

    def __init__(self, function: Any, tool: str, *, strict: bool) -> None:
        self._tool, self._strict = tool, strict
        annotation = _hints(function).get("return", inspect.Parameter.empty)
        self._adapter = _typed(annotation)

    def check(self, result: Any) -> Any:
        """Return the result as declared.

        Raises:
            ContractViolation: it is something else; nobody knows then what the tool did.
        """
        if self._adapter is None:
            return result
        try:
            return self._adapter.validator.validate_python(result, strict=self._strict or None)
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
            place = ".".join(str(part) for part in problem["loc"])
            raise ContractViolation(
                f"{self._tool} returned something else than it declares: {place or 'result'}:"
                f" {_said(problem['type'], problem['msg'])}"
            ) from None

    def write(self, result: Any) -> str:
        """Return JSON text from which `restore` makes an equal result.

        Raises:
            NotStorable: there is none.
        """
        return _write(self._adapter, result)

    def keep(self, result: Any) -> str:
        """Like `write`, for the record.

        Raises:
            NotStorable: there is none, or it is too large.
        """
        return codec.limited(self.write(result))

    def restore(self, kept: str) -> Any:
        """Return the result that `keep` was given."""
        return _restore(self._adapter, kept)


def _typed(annotation: Any) -> TypeAdapter[Any] | None:
    """Return what checks values of a type, or None if it is none that pydantic knows."""
    if any(annotation is loose for loose in _LOOSE):
        return None
    # Models and dataclasses carry a configuration of their own and refuse another.
    for configuration in (ConfigDict(arbitrary_types_allowed=True), None):
        with contextlib.suppress(PydanticUserError, NameError, TypeError):
            return TypeAdapter(annotation, config=configuration)
    return None


def _write(adapter: TypeAdapter[Any] | None, value: Any) -> str:
    """The declared type's own JSON, if it comes back as itself; most do. Else our own."""
    data = b""
    try:
        # By what is inside of the adapter: its own methods take three times as long.
        data = adapter.serializer.to_json(value) if adapter else b""
        same = adapter is not None and adapter.validator.validate_json(data) == value
    except Exception:  # noqa: BLE001 - any type's own failure means: not this way
        same = False
    return "t" + data.decode() if same is True else "j" + codec.encode(value).decode()


def _restore(adapter: TypeAdapter[Any] | None, text: str) -> Any:
    kind, data = text[0], text[1:]
    if kind == "t" and adapter is not None:
        return adapter.validate_json(data)
    return codec.decode(data)
