"""Decides by a line of text whether a person is asked: compares, and does nothing else.

The text is parsed by Python's own grammar, every node is held against an allow-list, and what
remains is compiled once to closures. Nothing is ever called, so nothing has to be forbidden.
When a comparison has no honest answer (other kinds of values, NaN, a missing field) the
expression has none either, and a person is asked.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NoReturn

from .errors import ConfigurationError

MAX_LENGTH: Final = 1_000
MAX_DEPTH: Final = 32
_SHOWN: Final = 120

Values = Mapping[str, Any]
_Run = Callable[[Values], Any]
_Test = Callable[[Any, Any], bool]
_INDEXED: Final[tuple[type[Any], ...]] = (Mapping, list, tuple, str)
_MANY: Final[tuple[type[Any], ...]] = (Mapping, list, tuple, AbstractSet)


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    Attributes:
        text: as it was written; it is the rule that approvers see.
        names: the arguments it reads.
    """

    text: str
    names: frozenset[str]
    _run: _Run = field(repr=False, compare=False)

    def asks(self, values: Values) -> bool:
        """Return whether a person has to decide: always, unless the outcome is a plain False."""
        try:
            return self._run(values) is not False
        except Exception:  # noqa: BLE001 - this is intentional: no answer means ask
            return True


def compile_expression(text: str, names: Collection[str] | None) -> Expression:
    """Check *text* and compile it.

    Args:
        text: such as `amount_usd > 50 and currency == 'USD'`.
        names: the tool's arguments; None while they are not known, which checks all but names.

    Raises:
        ConfigurationError: if the text is no expression of this small language or reads a name
            that is not among *names*.
    """
    source = _checked_text(text)
    compiler = _Compiler(source, names)
    run = compiler.truth(_parsed(source), 1)
    return Expression(source, frozenset(compiler.read), run)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?` with the closest known name, or nothing."""
    from difflib import get_close_matches  # loaded only when something is wrong

    close = get_close_matches(name[:100], [*known], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _checked_text(text: object) -> str:
    if not isinstance(text, str):
        kind = type(text).__name__
        raise ConfigurationError(f"an expression must be a text, not {kind}; put it in quotes")
    if not text.strip():
        raise ConfigurationError("the expression is empty; leave it out to ask always")
    if len(text) > MAX_LENGTH:
        raise ConfigurationError(
            f"the expression {_shown(text)} has {len(text)} characters; use at most {MAX_LENGTH}"
        )
    return text.strip()


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}…"


def _parsed(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        reason = error.msg
    except (ValueError, OverflowError):
        reason = "it contains characters or numbers that no expression can have"
    except (RecursionError, MemoryError):  # how the parser says that it is nested too deeply
        reason = "it is nested too deeply"
    raise ConfigurationError(f"the expression {_shown(text)} cannot be read: {reason}; correct it")


class _Doubt(Exception):
    """There is no honest True or False."""


class _Float(float):
    """A constant with a point: exact beside a Decimal, binary beside a float."""

    exact: Decimal


_NUMBER: Final = Decimal
_KINDS: Final[Mapping[type, type]] = {
    int: _NUMBER,
    float: _NUMBER,
    _Float: _NUMBER,
    Decimal: _NUMBER,
    bool: bool,
    str: str,
}


def _kind(value: object) -> type:
    kind = type(value)
    found = _KINDS.get(kind)
    if found is None:
        found = next((_KINDS[base] for base in kind.__mro__ if base in _KINDS), kind)
    return found


def _aligned(left: Any, right: Any) -> tuple[Any, Any]:
    """Return two values of one kind so that Python compares them exactly.

    Raises:
        _Doubt: if they are of different kinds (text "50" and number 50, an enum and its text)
            or one of them is not a number.
    """
    kind = _kind(left)
    if kind is not _kind(right):
        raise _Doubt
    if kind is not _NUMBER:
        return left, right
    if left != left or right != right:  # noqa: PLR0124 - this is intentional: finds NaN
        raise _Doubt
    if isinstance(left, Decimal):
        return left, right.exact if type(right) is _Float else right
    return (left.exact if type(left) is _Float and isinstance(right, Decimal) else left), right


def _plain(answer: Any) -> bool:
    if answer is True or answer is False:
        return answer
    raise _Doubt  # as an array or a query builder would answer


def _ordered(compare: _Test) -> _Test:
    def test(left: Any, right: Any) -> bool:
        return _plain(compare(*_aligned(left, right)))

    return test


def _equal(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    left, right = _aligned(left, right)
    return _plain(left == right)


def _contains(item: object, container: Any) -> bool:
    if isinstance(container, str) and isinstance(item, str):
        return item in container
    if not issubclass(type(container), _MANY):
        raise _Doubt
    answers = [_equal_or_none(item, other) for other in container]
    if True in answers:
        return True
    # One of several kinds may differ; if none could be compared, "not in it" is only a guess.
    if answers and all(answer is None for answer in answers):
        raise _Doubt
    return False


def _equal_or_none(left: Any, right: Any) -> bool | None:
    try:
        return _equal(left, right)
    except _Doubt:
        return None


_TESTS: Final[Mapping[type[ast.cmpop], _Test]] = {
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.Eq: _equal,
    ast.NotEq: lambda left, right: not _equal(left, right),
    ast.In: _contains,
    ast.NotIn: lambda left, right: not _contains(left, right),
}

_MENDS: Final[Mapping[type[ast.AST], str]] = {
    ast.Call: "a call is not allowed",
    ast.BinOp: "arithmetic is not allowed; compute the value in the tool and name an argument",
    ast.Is: "'is' is not allowed; write == instead",
    ast.IsNot: "'is not' is not allowed; write != instead",
    ast.IfExp: "a choice by 'if' is not allowed; write it with and, or, not",
    ast.Lambda: "a lambda is not allowed",
    ast.JoinedStr: "an f-string is not allowed; write a plain text",
    ast.NamedExpr: "an assignment is not allowed",
    ast.Slice: "a slice is not allowed; name one item",
    ast.Set: "a set is not allowed; write a list",
    ast.Starred: "a star is not allowed",
    ast.List: "a list may only stand to the right of 'in'",
    ast.Tuple: "a tuple may only stand to the right of 'in'",
    ast.UAdd: "a plus sign is not allowed; leave it out",
    ast.Invert: "~ is not allowed; write 'not'",
}


_ALLOWED: Final = (
    "; an expression has comparisons, and, or, not, in, names, fields, items and constants"
)


class _Compiler:
    """Turns allowed nodes into closures and notes which arguments they read."""

    def __init__(self, text: str, names: Collection[str] | None) -> None:
        self.text = text
        self.names = names
        self.read: set[str] = set()
        self._allowed: dict[type[ast.expr], Callable[[Any, int], _Run]] = {
            ast.Attribute: self._attribute,
            ast.BoolOp: self._junction,
            ast.Compare: self._comparison,
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.Subscript: self._item,
            ast.UnaryOp: self._unary,
        }

    def refuse(self, reason: str) -> NoReturn:
        raise ConfigurationError(f"the expression {_shown(self.text)} cannot be used: {reason}")

    def forbid(self, node: ast.AST) -> NoReturn:
        word = type(node).__name__
        self.refuse(_MENDS.get(type(node), f"{word} is not allowed") + _ALLOWED)

    def truth(self, node: ast.expr, depth: int) -> _Run:
        """Compile a node that must come out as True or False."""
        if isinstance(node, ast.Constant) and not isinstance(node.value, bool):
            self.refuse(f"{node.value!r} alone is never True or False; compare it with something")
        return self.value(node, depth)

    def value(self, node: ast.expr, depth: int) -> _Run:
        """Compile any allowed node."""
        if type(node) not in self._allowed:
            self.forbid(node)
        if depth > MAX_DEPTH:
            self.refuse(f"it is nested deeper than {MAX_DEPTH} levels; split the rule")
        return self._allowed[type(node)](node, depth + 1)

    def _junction(self, node: ast.BoolOp, depth: int) -> _Run:
        parts = [self.truth(part, depth) for part in node.values]
        last = isinstance(node.op, ast.Or)  # the answer that settles it

        def run(values: Values) -> bool:
            for part in parts:
                if _plain(part(values)) is last:
                    return last
            return not last

        return run

    def _comparison(self, node: ast.Compare, depth: int) -> _Run:
        first = self.value(node.left, depth)
        links = [
            (self._test(sign), self._right(sign, right, depth))
            for sign, right in zip(node.ops, node.comparators, strict=True)
        ]
        if len(links) > 1:
            return _chain(first, links)
        ((test, second),) = links
        return lambda values: test(first(values), second(values))

    def _test(self, sign: ast.cmpop) -> _Test:
        if type(sign) not in _TESTS:
            self.forbid(sign)
        return _TESTS[type(sign)]

    def _right(self, sign: ast.cmpop, node: ast.expr, depth: int) -> _Run:
        if isinstance(node, (ast.List, ast.Tuple)) and isinstance(sign, (ast.In, ast.NotIn)):
            items = [self.value(item, depth) for item in node.elts]
            return lambda values: [item(values) for item in items]
        return self.value(node, depth)

    def _name(self, node: ast.Name, _depth: int) -> _Run:
        if self.names is not None and node.id not in self.names:
            self._unknown(node.id, self.names)
        self.read.add(node.id)
        return operator.itemgetter(node.id)

    def _unknown(self, name: str, names: Collection[str]) -> NoReturn:
        known = sorted(names)
        mend = suggestion(name, [*known, "True", "False", "None"])
        self.refuse(
            f"{name!r} is not an argument of the tool"
            + (mend or f"; its arguments are: {', '.join(known[:12]) or 'none'}")
        )

    def _attribute(self, node: ast.Attribute, depth: int) -> _Run:
        if node.attr.startswith("_"):
            self.refuse(f"{node.attr!r} begins with an underscore; name a public field")
        run, get = self.value(node.value, depth), operator.attrgetter(node.attr)
        return lambda values: get(run(values))

    def _item(self, node: ast.Subscript, depth: int) -> _Run:
        run, index = self.value(node.value, depth), self.value(node.slice, depth)
        return lambda values: _item_of(run(values), index(values))

    def _constant(self, node: ast.Constant, _depth: int) -> _Run:
        value = node.value
        if isinstance(value, float):
            value = self._exact(node, value)
        elif value is not None and not isinstance(value, (bool, int, str)):
            self.refuse(f"{value!r} is not a constant that can be compared" + _ALLOWED)
        return lambda _: value

    def _exact(self, node: ast.Constant, value: float) -> _Float:
        if math.isinf(value):
            self.refuse("a number in it is too large; write a smaller one")
        exact = _Float(value)
        exact.exact = Decimal(ast.get_source_segment(self.text, node) or repr(value))
        return exact

    def _unary(self, node: ast.UnaryOp, depth: int) -> _Run:
        if isinstance(node.op, ast.Not):
            run = self.truth(node.operand, depth)
            return lambda values: not _plain(run(values))
        if not isinstance(node.op, ast.USub):
            self.forbid(node.op)
        run = self.value(node.operand, depth)
        return lambda values: _negated(run(values))


def _chain(first: _Run, links: list[tuple[_Test, _Run]]) -> _Run:
    def run(values: Values) -> bool:
        left = first(values)
        for test, second in links:
            right = second(values)
            if not test(left, right):
                return False
            left = right
        return True

    return run


def _item_of(owner: Any, key: object) -> Any:
    # Only containers: an item of anything else would be a call of its code. Asking first whether
    # the key is there keeps a defaultdict from inventing, and storing, an answer.
    if not issubclass(type(owner), _INDEXED):
        raise _Doubt
    if issubclass(type(owner), Mapping) and key not in owner:
        raise _Doubt
    return owner[key]


def _negated(value: Any) -> Any:
    if _kind(value) is not _NUMBER:
        raise _Doubt
    if type(value) is _Float:
        negative = _Float(-value)
        negative.exact = value.exact.copy_negate()
        return negative
    return value.copy_negate() if isinstance(value, Decimal) else -value
