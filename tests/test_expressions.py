"""The specification of expressions: what may be written, and when a person is asked."""

from __future__ import annotations

import copy
import enum
import timeit
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentguard.errors import ConfigurationError
from agentguard.expressions import MAX_DEPTH, MAX_LENGTH, compile_expression


class Colour(enum.Enum):
    """An enum whose members are no text."""

    RED = "red"


class Currency(enum.StrEnum):
    """An enum whose members are text."""

    USD = "USD"


@dataclass
class Order:
    """An argument with fields."""

    total: Decimal = Decimal(60)
    note: str = "fragile"

    @property
    def broken(self) -> NoReturn:
        """Fail, as a lazy field may."""
        raise RuntimeError("no answer")

    def is_large(self) -> bool:
        """Never be called by an expression."""
        raise AssertionError("called")


class Strange:
    """A value that answers comparisons with something that is no bool."""

    def __gt__(self, other: object) -> list[object]:
        return []

    def __eq__(self, other: object) -> Any:
        return []

    __hash__ = None  # type: ignore[assignment]


def asks(text: str, **values: Any) -> bool:
    """Compile *text* over the names of *values* and evaluate it."""
    return compile_expression(text, values).asks(values)


def refusal(text: Any, *names: str) -> str:
    """Return the sentence with which *text* is refused."""
    with pytest.raises(ConfigurationError) as caught:
        compile_expression(text, names)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("amount > 50", True),
        ("amount < 50", False),
        ("amount >= 60", True),
        ("amount <= 59.99", False),
        ("amount == 60", True),
        ("amount != 60", False),
        ("0 < amount <= 60", True),
        ("0 < amount < 60", False),
        ("-amount < -59", True),
        ("amount > -1.5", True),
        ("currency == 'USD'", True),
        ("currency in ['EUR', 'USD']", True),
        ("currency in ('EUR', 'GBP')", False),
        ("currency not in ['EUR', 'USD']", False),
        ("'SD' in currency", True),
        ("'vip' in tags", False),
        ("'a' in limits", True),
        ("amount in [60, 70]", True),
        ("amount in [limits['a'], 1]", False),
        ("amount > 50 and currency == 'USD'", True),
        ("amount > 90 or currency == 'EUR'", False),
        ("not amount > 50", False),
        ("not (amount > 90 and express)", True),
        ("express", False),
        ("note == None", True),
        ("note != None", False),
        ("order.total > 50", True),
        ("order.note == 'x'", False),
        ("limits['a'] > 1", True),
        ("tags[-1] == 'new'", True),
        ("tags[0] == 'x'", False),
        ("True", True),
        ("False", False),
    ],
)
def test_expressions_mean_what_they_mean_in_python(text: str, *, outcome: bool) -> None:
    """Comparisons, and, or, not, in, names, fields, items and constants mean what Python means."""
    values = {
        "amount": Decimal(60),
        "currency": "USD",
        "tags": ["gift", "new"],
        "limits": {"a": 5},
        "express": False,
        "note": None,
        "order": Order(),
    }
    assert compile_expression(text, values).asks(values) is outcome


@pytest.mark.parametrize("amount", [Decimal("0.1"), 0.1])
def test_constants_with_a_point_are_exact(amount: Any) -> None:
    """A constant such as 0.1 equals the decimal 0.1 and the float 0.1."""
    assert asks("amount == 0.1", amount=amount)
    assert not asks("amount > 0.1", amount=amount)
    assert asks("amount in [0.1]", amount=amount)
    assert asks("-0.1 >= amount", amount=-amount)


def test_constants_keep_every_digit_beside_a_decimal() -> None:
    """A constant with more digits than a float holds is compared with all of them."""
    assert asks("x > 0.1000000000000000000001", x=Decimal("0.1000000000000000000002"))
    assert not asks("x > 0.1000000000000000000002", x=Decimal("0.1000000000000000000001"))


def test_negation_keeps_every_digit() -> None:
    """A unary minus does not round a decimal."""
    long = Decimal("1.23456789012345678901234567890123456789")
    assert asks("-x == y", x=long, y=long.copy_negate())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x > 50", float("nan")),
        ("50 < x", float("nan")),
        ("x > 50", Decimal("NaN")),
        ("x == 50", Decimal("sNaN")),
        ("x in [1, 2]", float("nan")),
        ("x > 50", "20"),
        ("x == 50", "50"),
        ("x == '50'", 50),
        ("x > 50", None),
        ("x > 0", True),
        ("x == 1", True),
        ("x == 'blue'", Colour.RED),
        ("x in ['blue']", Colour.RED),
        ("x not in ['red']", Colour.RED),
        ("x == 'a'", b"a"),
        ("'a' in x", 5),
        ("5 in x", "5"),
        ("x", None),
        ("x", 0),
        ("x", ""),
        ("x", []),
        ("not x", "yes"),
        ("x or x", 0),
        ("x and False", 1),
        ("x > 1", Strange()),
        ("x == x", Strange()),
        ("x.total > 1", {}),
        ("x.broken", Order()),
        ("x.is_large", Order()),
        ("not x.is_large", Order()),
        ("x['b'] > 1", {"a": 1}),
        ("x[5] == 1", [1]),
        ("x[0] == 1", Order()),
        ("-x == 1", "a"),
        ("-x == 1", True),
    ],
)
def test_anything_but_a_plain_answer_asks(text: str, value: object) -> None:
    """Whatever has no honest True or False, NaN and mixed kinds included, asks a person."""
    assert asks(text, x=value) is True


def test_a_missing_argument_asks() -> None:
    """A value that did not arrive asks a person."""
    assert compile_expression("x > 1", ["x"]).asks({}) is True


def test_a_list_of_several_kinds_is_searched_for_the_kind_that_fits() -> None:
    """A list may mix kinds: those that cannot be compared are passed over."""
    assert asks("x in ['a', None, 1]", x=1)
    assert not asks("x in ['a', None, 1]", x=2)
    assert not asks("x in []", x=2)


def test_text_enums_are_texts() -> None:
    """A member of a StrEnum is compared as the text that it is."""
    assert not asks("x == 'EUR'", x=Currency.USD)


def test_items_are_never_invented() -> None:
    """Looking for an item leaves a defaultdict as it was, and asks."""
    values: defaultdict[str, int] = defaultdict(int)
    assert asks("x['a'] > 1", x=values)
    assert not values


def test_later_parts_are_not_looked_at() -> None:
    """The part of `and` or `or` that settles the answer is the last one evaluated."""
    assert not asks("x > 50 and y > 1", x=1, y=None)
    assert not asks("5 < x < y", x=1, y=None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("f(x)", "a call is not allowed"),
        ("x.upper()", "a call is not allowed"),
        ("x + 1 > 2", "arithmetic is not allowed"),
        ("9 ** 9 > x", "arithmetic is not allowed"),
        ("+x > 1", "leave it out"),
        ("~x", "write 'not'"),
        ("x is None", "write == instead"),
        ("x is not None", "write != instead"),
        ("x if x else x", "and, or, not"),
        ("lambda: x", "a lambda is not allowed"),
        ("f'{x}' == 'a'", "an f-string is not allowed"),
        ("(x := 1) > 0", "an assignment is not allowed"),
        ("x[1:2] == 'a'", "name one item"),
        ("x in {1, 2}", "write a list"),
        ("x in [*x]", "a star is not allowed"),
        ("[1] == x", "to the right of 'in'"),
        ("x == (1, 2)", "to the right of 'in'"),
        ("[y for y in x]", "ListComp is not allowed"),
        ("{'a': 1} == x", "Dict is not allowed"),
        ("x.__class__", "begins with an underscore"),
        ("x._secret == 1", "begins with an underscore"),
        ("x == 1j", "not a constant"),
        ("x == b'a'", "not a constant"),
        ("x == ...", "not a constant"),
        ("x > 1e999", "too large"),
        ("50", "never True or False"),
        ("x == 'USD' or 'EUR'", "'EUR' alone is never True or False"),
        ("not 'a'", "never True or False"),
    ],
)
def test_everything_else_is_refused(text: str, reason: str) -> None:
    """What is not on the list of allowed forms is refused, with the form to use instead."""
    sentence = refusal(text, "x")
    assert reason in sentence
    assert repr(text) in sentence


@pytest.mark.parametrize(
    "text", ["x ==", "x; x", "x = 1", "import os", "x\0", "'\ud800'", "9" * 900 + "e", "(x"]
)
def test_what_cannot_be_parsed_is_refused(text: str) -> None:
    """A text that is no Python expression is refused with the reason."""
    assert "cannot be read" in refusal(text, "x")


@pytest.mark.parametrize("text", ["", "  \n "])
def test_an_empty_text_is_refused(text: str) -> None:
    """An empty expression is refused: leaving it out says the same more clearly."""
    assert "is empty" in refusal(text)


@pytest.mark.parametrize("text", [None, 5, True, b"x > 1", ["x"]])
def test_only_text_is_an_expression(text: object) -> None:
    """A value that is no text is refused."""
    assert "must be a text" in refusal(text, "x")


def test_an_unknown_name_is_named_with_a_close_match() -> None:
    """A name that is no argument is refused with the expression and the closest argument."""
    assert refusal("amount_us > 50", "amount_usd", "ticket_id") == (
        "the expression 'amount_us > 50' cannot be used: 'amount_us' is not an argument of the "
        "tool; did you mean 'amount_usd'?"
    )


def test_an_unknown_name_without_a_match_lists_the_arguments() -> None:
    """A name that resembles no argument is refused with the arguments there are."""
    assert refusal("zzz > 50", "b", "a").endswith("its arguments are: a, b")
    assert refusal("zzz > 50").endswith("its arguments are: none")


def test_a_lower_case_true_is_explained() -> None:
    """`true` is answered with Python's True."""
    assert "did you mean 'True'?" in refusal("x == true", "x")


def test_names_can_be_left_for_later() -> None:
    """Without known arguments everything but the names is checked, and the names are told."""
    expression = compile_expression("a > 1 and b['k'].c == 'd'", None)
    assert expression.names == {"a", "b"}
    with pytest.raises(ConfigurationError):
        compile_expression("a + 1", None)


def test_a_long_text_is_refused() -> None:
    """A text over the size cap is refused before it is parsed, and shown shortened."""
    sentence = refusal("x == '" + "a" * MAX_LENGTH + "'", "x")
    assert f"use at most {MAX_LENGTH}" in sentence
    assert len(sentence) < 300


@pytest.mark.parametrize(
    "text",
    [
        "not " * MAX_DEPTH + "x",
        "-" * 900 + "x == 1",
        "x" + ".a" * MAX_DEPTH,
        "x" + "[0]" * MAX_DEPTH,
        "(" * 400 + "x" + ")" * 400,
        "x in " + "[" * 400 + "]" * 400,
        "x" + " == (x" * 100 + ")" * 100,
    ],
)
def test_deep_nesting_is_refused(text: str) -> None:
    """An expression that is nested too deeply is refused, however it is nested."""
    assert "nested" in refusal(text, "x")


def test_long_but_flat_rules_are_fine() -> None:
    """Depth counts levels, not parts: many parts side by side are allowed."""
    assert asks(" or ".join(f"x == {n}" for n in range(60)), x=59)


def test_the_text_is_kept_as_written() -> None:
    """The expression shows its text, trimmed, since it is the rule that approvers see."""
    expression = compile_expression("  x > 50\n", ["x"])
    assert expression.text == "x > 50"
    assert repr(expression) == "Expression(text='x > 50', names=frozenset({'x'}))"


def test_expressions_survive_copying() -> None:
    """A deep copy of an expression works like the original and equals it."""
    expression = compile_expression("x > 50", ["x"])
    twin = copy.deepcopy(expression)
    assert twin == expression
    assert not twin.asks({"x": 1})


@given(
    st.text(max_size=60) | st.text(alphabet="x.[]()'\"<>=!-+ andornti0123456789ef_,:", max_size=60)
)
def test_no_text_breaks_the_compiler(text: str) -> None:
    """Any text either compiles or is refused with a ConfigurationError."""
    try:
        expression = compile_expression(text, ["x"])
    except ConfigurationError:
        return
    assert expression.asks({"x": 1}) in (True, False)


OPERANDS = st.sampled_from(
    ["x", "y", "x.real", "y['a']", "1", "-2.5", "'USD'", "None", "True", "x.total", "y[x]", "0.1"]
)
SIGNS = st.sampled_from(["<", "<=", ">", ">=", "==", "!=", "in", "not in"])
COMPARISONS = st.builds("{} {} {}".format, OPERANDS, SIGNS, OPERANDS)
RULES = st.recursive(
    COMPARISONS,
    lambda rules: (
        st.builds("({} and {})".format, rules, rules)
        | st.builds("({} or {})".format, rules, rules)
        | st.builds("not {}".format, rules)
    ),
    max_leaves=6,
)
PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text(max_size=3)
)
VALUES = st.recursive(PLAIN, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v))


@given(RULES, VALUES, VALUES)
def test_no_value_breaks_an_expression(text: str, x: object, y: object) -> None:
    """Evaluation never raises and always answers True or False."""
    assert compile_expression(text, ["x", "y"]).asks({"x": x, "y": y}) in (True, False)


@given(st.decimals(allow_nan=False), st.decimals(allow_nan=False, allow_infinity=False))
def test_decimals_are_compared_exactly(x: Decimal, limit: Decimal) -> None:
    """A rule over a decimal argument agrees with exact arithmetic on the constant's digits."""
    text = f"x > {format(limit, 'f')}"
    if len(text) <= MAX_LENGTH and "inf" not in repr(float(limit)):
        assert compile_expression(text, ["x"]).asks({"x": x}) is (x > limit)


def test_a_threshold_is_decided_within_two_microseconds() -> None:
    """`amount_usd > 50` costs a call less than 2 µs."""
    expression, values = (
        compile_expression("amount_usd > 50", ["amount_usd"]),
        {"amount_usd": Decimal(20)},
    )
    best = min(timeit.repeat(lambda: expression.asks(values), number=2_000, repeat=7)) / 2_000
    assert best < 2e-6
