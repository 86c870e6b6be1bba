"""The contract: what goes in, what comes out, and what may never be written down."""

from __future__ import annotations

import datetime as dt
import enum
import itertools
import json
import math
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pytest
from pydantic import BaseModel, Field

from agentguard import (
    ContractViolation,
    EffectInDoubt,
    Guard,
    GuardError,
    NoEffect,
    ResultUnavailable,
    Retry,
    Verdict,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)

Tool = Callable[..., Any]


@pytest.fixture(name="guard")
def guard_without_a_file() -> Iterator[Guard]:
    """A guard whose store lives as long as the test."""
    guard = Guard("memory://")
    yield guard
    guard.close()


def as_write(function: Any, **contract: Any) -> Any:
    """Guard *function* as a write that may repeat."""
    return tool_contract(effect="write", **contract)(idempotent(per="call")(function))


def nested(levels: int) -> list[Any]:
    """Make a list in a list in a list, and so on."""
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def a_circle() -> list[Any]:
    """Make a list that contains itself."""
    found: list[Any] = []
    found.append(found)
    return found


class Colour(enum.StrEnum):
    """A colour."""

    RED = "red"


class Line(BaseModel):
    """A line of an order."""

    product: str
    price: Decimal
    on: dt.datetime | None = None


# Bad input.

TEN_MB = "x" * 10_000_000
DIGITS = "9" * 5_000
BAD: list[tuple[str, Any, Any, str]] = [
    ("a text for a number", int, "five", "valid integer"),
    ("a fraction for an integer", int, 1.5, "valid integer"),
    ("a number for a text", str, 5, "valid string"),
    ("a text for a list", list[int], "1,2", "valid list"),
    ("a wrong item", list[int], [1, "x"], "x.1"),
    ("a wrong field", Line, {"product": "p", "price": "cheap"}, "x.price"),
    ("a missing field", Line, {"product": "p"}, "x.price: this argument is missing"),
    ("a colour that is none", Colour, "blue", "'red'"),
    ("NaN as a float", float, math.nan, "finite"),
    ("infinity as a float", float, math.inf, "finite"),
    ("infinity in a text", float, "1e999", "finite"),
    ("NaN as an integer", int, math.nan, "finite"),
    ("NaN as money", Decimal, "NaN", "finite"),
    ("infinite money", Decimal, math.inf, "finite"),
    ("signalling NaN anywhere", Any, Decimal("sNaN"), "not finite"),
    ("NaN anywhere", Any, [1, {"a": math.nan}], r"x\[1\]\.a"),
    ("minus infinity anywhere", dict[str, Any], {"a": -math.inf}, r"x\.a"),
    ("a huge exponent", Decimal, "1e999999999", "far too large"),
    ("a tiny exponent", Decimal, "1e-999999999", "far too large or small"),
    ("a hundred thousand digits of money", Decimal, "9" * 100_000, "far too large"),
    ("an integer too long for a float", float, 10**400, "valid number"),
    ("an integer of 5,000 digits", int, 10**5_000, "too many digits"),
    ("a text of 5,000 digits", int, DIGITS, "maximum size"),
    ("an integer of 5,000 digits anywhere", Any, {"n": 10**5_000}, "too many digits"),
    ("ten megabytes of text", str, TEN_MB, "10000[0-9]{3} bytes, 1048576 are allowed"),
    ("a megabyte that only escapes make", str, "é" * 700_000, "1048576 are allowed"),
    ("a lone surrogate", str, "a\ud800b", "lone surrogate"),
    ("a lone surrogate anywhere", Any, ["\udfff"], "lone surrogate"),
    ("a lone surrogate in a key", dict[str, Any], {"\ud800": 1}, "lone surrogate"),
    ("a lone surrogate as bytes", bytes, "\ud800", "unicode"),
    ("100,000 levels", Any, nested(100_000), "nested deeper than 64 levels"),
    ("66 levels", list[Any], nested(66), "nested deeper than 64 levels"),
    ("a list in itself", Any, a_circle(), "nested deeper than 64 levels"),
    ("an object", Any, object(), "no JSON form"),
    ("a class", Any, Line, "no JSON form"),
    ("a generator", Any, (n for n in range(3)), "no JSON form"),
    ("a complex number", Any, 1j, "no JSON form"),
]


@pytest.mark.parametrize(
    ("annotation", "value", "sentence"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD]
)
def test_bad_input_is_refused_before_anything_happens(
    annotation: Any, value: Any, sentence: str, guard: Guard
) -> None:
    """Each bad value ends in one short sentence; the tool does not run and no effect is begun."""
    ran: list[Any] = []

    def work(x: Any) -> None:
        ran.append(x)

    work.__annotations__["x"] = annotation
    tool = as_write(work)
    with guard.run("bad") as run, pytest.raises(ContractViolation, match=sentence) as refused:
        tool(value)
    assert (ran, guard.effects.list(), run.usage.tool_calls) == ([], [], 0)
    assert len(refused.value.message) < 400
    assert "\n" not in refused.value.message
    assert json.loads(refused.value.for_model())["retryable"] is False
    kinds = [(event.kind, event.data.get("error")) for event in guard.runs.events(run.id)]
    assert ("step.decided", "contract_violation") in kinds


def order(product: str, count: Annotated[int, Field(gt=0, le=10)] = 1) -> str:
    """Order a product."""
    return f"{count} {product}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "order: product: this argument is missing; give it"),
        (
            {"product": "p", "colour": "red"},
            "order: colour: the tool has no such argument; leave it out",
        ),
        ({"product": "p", "count": 0}, "order: count: input should be greater than 0"),
        ({"product": "p", "count": 11}, "order: count: input should be less than or equal to 10"),
        ({"product": 1, "count": "x", "a": 1, "b": 2}, "order: .*; .*; [^;]*; .*"),
    ],
)
def test_every_problem_has_its_sentence(
    arguments: dict[str, Any], sentence: str, guard: Guard
) -> None:
    """Missing and unknown arguments and broken constraints are told apart, three at a time."""
    with guard.run("bad"), pytest.raises(ContractViolation, match=f"^{sentence}$"):
        as_write(order)(**arguments)


def test_a_constraint_as_default_counts(guard: Guard) -> None:
    """`x: int = Field(5, gt=0)` declares both the default and the constraint."""

    def work(x: int = Field(5, gt=0), y: int = Field(gt=0)) -> int:
        return x * y

    tool = as_write(work)
    with guard.run("constraints"):
        assert tool(y=2) == 10
        for bad in ({"y": 0}, {"x": 0, "y": 1}, {"x": 1}):
            with pytest.raises(ContractViolation):
                tool(**bad)


def test_lax_tools_coerce_and_strict_tools_refuse(guard: Guard) -> None:
    """What fits after coercion passes unless the contract is strict."""
    given: list[Any] = []

    def work(count: int, price: Decimal, urgent: bool = False) -> None:  # noqa: FBT001, FBT002 - as tools are
        given.append((count, price, urgent))

    calls: list[dict[str, Any]] = [
        {"count": "3", "price": Decimal(1)},
        {"count": 3.0, "price": Decimal(1)},
        {"count": 3, "price": "1.50"},
        {"count": 3, "price": Decimal(1), "urgent": "yes"},
    ]
    lax, strict = as_write(work), as_write(work, strict=True, name="strict")
    with guard.run("strictness"):
        for call in calls:
            lax(**call)
            with pytest.raises(ContractViolation, match="strict: "):
                strict(**call)
        strict(count=3, price=Decimal("1.5"))
    assert len(given) == len(calls) + 1
    assert {type(part) for call in given for part in call} == {int, Decimal, bool}


def test_models_reach_the_body_as_models(guard: Guard) -> None:
    """A dict becomes the declared model, whichever way the runtime passes it."""
    given: list[Line] = []

    def work(line: Line, more: list[Line]) -> None:
        given.extend([line, *more])

    line = {"product": "p", "price": "1.10"}
    with guard.run("models"):
        as_write(work)(line, more=[line, Line(product="p", price=Decimal("1.10"))])
    assert given == [Line(product="p", price=Decimal("1.10"))] * 3


@pytest.mark.parametrize("by_schema", [False, True])
def test_a_body_owns_its_arguments(by_schema: bool, guard: Guard) -> None:  # noqa: FBT001 - a parameter
    """A body that changes its arguments changes neither a later attempt nor what verifiers see."""
    seen: list[Any] = []

    def work(tags: list[str]) -> None:
        tags.append("changed")
        seen.append(list(tags))
        if len(seen) < 3:
            raise NoEffect("busy")

    schema = {"type": "object", "properties": {"tags": {"type": "array"}}} if by_schema else None
    tool = guard.protect(
        work, effect="write", per="call", input_schema=schema, retry=Retry(attempts=3, wait=0),
        verified_by=lambda arguments, _result: seen.append(arguments["tags"]),
    )  # fmt: skip
    given = ["a"]
    with guard.run("tags"):
        tool(tags=given)
    assert (seen, given) == ([["a", "changed"]] * 3 + [["a"]], ["a"])


# Results.


@dataclass
class Receipt:
    """A receipt."""

    amount: Decimal
    lines: list[int]


class Pair(NamedTuple):
    """Two things."""

    left: int
    right: str


NOW = dt.datetime(2026, 11, 23, 8, 0, tzinfo=dt.timezone(dt.timedelta(hours=2)))
UNTYPED: list[Any] = [
    0, "", [], {}, None, False, 0.0, (), set(), b"", Decimal(0), True, 1, -1.5, "é\n\0", [()],
    {"a": (1, [None, {}])}, {1: "a", (2, 3): "b"}, Decimal("1.10"), NOW, NOW.date(), b"\xff\x00",
    uuid.UUID(int=7), 10**30, {"$agentguard": "decimal", "value": "9"},
]  # fmt: skip
TYPED: list[tuple[Any, Any]] = [
    (int, 0), (str, ""), (list[int], []), (dict[str, int], {}), (None, None), (bool, False),
    (float, 0.0), (tuple[int, ...], ()), (int | None, None), (int | bool, False), (int | bool, 0),
    (int | float, 0), (int | float, 0.0), (list[Any] | tuple[Any, ...], ()), (object, ()),
    (Line, Line(product="p", price=Decimal("1.10"), on=NOW)), (Receipt, Receipt(Decimal("1.10"), [1])),
    (list[Line], [Line(product="p", price=Decimal(1))]), (Pair, Pair(1, "a")), (Colour, Colour.RED),
    (Decimal, Decimal("1.10")), (dt.datetime, NOW), (dt.date, NOW.date()), (dt.time, dt.time(1, 2)),
    (dt.timedelta, dt.timedelta(seconds=1.5)), (tuple[int, str], (1, "a")), (set[str], {"a"}),
    (frozenset[int], frozenset({1})), (bytes, b"\xff\x00"), (uuid.UUID, uuid.UUID(int=7)),
    (complex, 1j), (Path, Path("a/b")), (dict[str, Any], {"a": Decimal("1.0"), "b": (1, NOW)}),
]  # fmt: skip


def refunding(result: Any, annotation: Any = "nothing") -> tuple[Tool, list[str]]:
    """Make a guarded refund that returns *result*, and the list of what it did."""
    refunds: list[str] = []

    def refund(ticket_id: str) -> Any:
        refunds.append(ticket_id)
        return result

    refund.__annotations__["return"] = annotation
    if annotation == "nothing":
        del refund.__annotations__["return"]
    return tool_contract(effect="write")(idempotent(key="{ticket_id}")(refund)), refunds


def shape(value: Any) -> Any:
    """Return *value* with the type of every part, so that 0, False and 0.0 differ."""
    if isinstance(value, dict):
        return dict, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [shape(item) for item in value]
    return type(value), value


def first_and_replayed(guard: Guard, tool: Tool) -> tuple[Any, Any]:
    """Return what a tool gives, and what a later run gets for the same key."""
    with guard.run("first"):
        first = tool("T-1")
    with guard.run("later"):
        return first, tool("T-1")


@pytest.mark.parametrize("result", UNTYPED, ids=repr)
def test_a_result_replays_as_itself(result: Any, guard: Guard) -> None:
    """A result without a declared type comes back equal and of the same type, empty ones too."""
    tool, refunds = refunding(result)
    first, replayed = first_and_replayed(guard, tool)
    assert shape(first) == shape(replayed) == shape(result)
    assert refunds == ["T-1"]


@pytest.mark.parametrize(("annotation", "result"), TYPED, ids=repr)
def test_a_typed_result_replays_as_its_type(annotation: Any, result: Any, guard: Guard) -> None:
    """A result of a declared type comes back as that type."""
    tool, refunds = refunding(result, annotation)
    first, replayed = first_and_replayed(guard, tool)
    assert shape(first) == shape(replayed) == shape(result)
    assert refunds == ["T-1"]


class Odd:
    """Something that no JSON can carry."""


@pytest.mark.parametrize(
    "result",
    [
        Odd(),
        {"a": Odd()},
        math.nan,
        [math.inf],
        "\ud800",
        nested(5_000),
        a_circle(),
        len,
        10**5_000,
    ],
    ids=["object", "inside", "nan", "inf", "surrogate", "deep", "circle", "function", "digits"],
)
def test_a_result_that_cannot_be_stored_leaves_a_success(result: Any, guard: Guard) -> None:
    """The first caller gets the result; later ones are told that it was done, and it is not redone."""
    tool, refunds = refunding(result)
    with guard.run("first"):
        assert tool("T-1") is result
    with guard.run("later"), pytest.raises(ResultUnavailable, match="its result is unserialisable"):
        tool("T-1")
    (effect,) = guard.effects.list()
    assert (effect.state, effect.result_state) == ("succeeded", "unserialisable")
    assert refunds == ["T-1"]


@pytest.mark.parametrize("result", ["x" * 300_000, "é" * 200_000, list(range(100_000))], ids=len)
def test_a_result_that_is_too_large_leaves_a_success(result: Any, guard: Guard) -> None:
    """More than 256 KiB are not kept; the effect is."""
    tool, refunds = refunding(result)
    with guard.run("first"):
        assert tool("T-1") == result
    with guard.run("later"), pytest.raises(ResultUnavailable, match="its result is too_large"):
        tool("T-1")
    assert refunds == ["T-1"]


@pytest.mark.parametrize(
    ("annotation", "result", "sentence"),
    [
        (int, "many", "result: input should be a valid integer"),
        (Line, {"product": "p"}, "price: this argument is missing"),
        (list[int], [1, None], "1: input should be a valid integer"),
    ],
)
def test_a_result_of_another_type_is_in_doubt(
    annotation: Any, result: Any, sentence: str, guard: Guard
) -> None:
    """The tool ran but returned what it does not declare: nobody knows what it did."""
    tool, refunds = refunding(result, annotation)
    with guard.run("first"), pytest.raises(ContractViolation, match=sentence):
        tool("T-1")
    (effect,) = guard.effects.list("in_doubt")
    assert effect.doubt_reason == "output_contract"
    with guard.run("later"), pytest.raises(EffectInDoubt):
        tool("T-1")
    assert refunds == ["T-1"]


def test_a_strict_tool_does_not_coerce_its_result(guard: Guard) -> None:
    """`"5"` passes for an integer unless the contract is strict."""

    def count(n: int) -> int:
        answer: Any = str(n)
        return answer  # type: ignore[no-any-return]

    with guard.run("strictness"):
        assert as_write(count)(5) == 5
        with pytest.raises(ContractViolation, match="returned something else"):
            as_write(count, strict=True, name="strict")(5)


# Sensitive arguments.

CARD, PIN, PRICE, PASSWORD = (
    "4111-1111-1111-1111",
    98_765_432_101,
    Decimal("8765432.19"),
    'pä"ss\nword',
)
TRACES = [CARD, str(PIN), str(PRICE), "pä", "p\\u00e4"]


def pay(case: str, card: str, pin: int, price: Decimal, more: dict[str, Any]) -> Any:
    """Pay, and give away every secret in the way that *case* says."""
    secrets = f"{card} {pin} {price} {more}"
    if case == "doubt":
        raise ValueError(secrets)
    if case == "no effect":
        raise NoEffect(secrets, retryable=False)
    return {"text": secrets, "object": [card, {"pin": pin}, price, more], "key": {card: pin}}.get(
        case
    )


def gives_away(arguments: Any, _result: Any) -> Verdict:
    """Confirm nothing but the case "text", and say all secrets."""
    return Verdict(passed=arguments["case"] == "text", reason=str(arguments))


def everything_in(folder: Path) -> bytes:
    """Read every byte of a store's files."""
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_sensitive_arguments_never_reach_the_disk(tmp_path: Path) -> None:
    """No byte of the store holds a secret, however the tool, its verifier or the model gives it away."""
    names = ["card", "pin", "price", "more"]
    policy: dict[str, Any] = {"effect": "write", "key": "{case}", "sensitive": names}
    guard = Guard(f"sqlite:///{tmp_path}/a.db")
    plain = guard.protect(pay, name="pay", **policy)
    asked = guard.protect(pay, name="asked", **policy, when=None, roles=["finance"])
    verified = guard.protect(pay, name="verified", **policy, verified_by=gives_away)
    read = guard.protect(pay, name="look", effect="read", sensitive=names)
    secrets = (CARD, PIN, PRICE, {"deep": [PASSWORD, {PASSWORD: PASSWORD}]})
    with guard.run("payments") as run:
        for tool in (plain, asked, verified, read):
            for case in ("text", "object", "key", "doubt", "no effect"):
                attempt(tool, case, *secrets)
        for bad in ([CARD], {"a": CARD}):
            attempt(plain, "text", bad, *secrets[1:])
        asks = run.model_started(model="m", messages=[{"role": "user", "content": f"pay {CARD}"}])
        run.model_finished(asks, output={"tool": "pay", "pin": PIN, "password": PASSWORD})
    with pytest.raises(ValueError, match=CARD), guard.run("payments"):
        read("doubt", *secrets)
    guard.close()
    stored = everything_in(tmp_path)
    assert b"payments" in stored
    assert [trace for trace in TRACES if trace.encode() in stored] == []


told: list[Exception] = []


def attempt(tool: Tool, *arguments: Any) -> None:
    """Call a tool that may fail; whatever it says to its caller is the caller's."""
    try:
        tool(*arguments)
    except (GuardError, ValueError, NoEffect) as error:
        told.append(error)


def test_a_refusal_does_not_quote_a_sensitive_argument(guard: Guard) -> None:
    """The sentence for the model names the argument and keeps its value to itself."""

    def pay(card: Annotated[str, Field(pattern="^[0-9]+$")]) -> str:
        return card

    tool = as_write(pay, sensitive=["card"])
    with (
        guard.run("payments"),
        pytest.raises(ContractViolation, match=r"^pay: card: does not fit$"),
    ):
        tool(CARD)


def test_people_who_approve_see_no_secrets(guard: Guard) -> None:
    """An approval shows the call with its sensitive arguments hidden."""
    tool = requires_approval()(as_write(pay, sensitive=["card", "pin", "more"]))
    with guard.run("payments"), pytest.raises(GuardError):
        tool("text", CARD, PIN, PRICE, {})
    (approval,) = guard.approvals.list()
    hidden = "[hidden]"
    assert approval.arguments == {
        "case": "text",
        "card": hidden,
        "pin": hidden,
        "price": str(PRICE),
        "more": hidden,
    }


# Tools that come with a JSON Schema.

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "product": {"type": "string", "minLength": 1},
        "count": {"type": "integer", "minimum": 1, "default": 1},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["product"],
}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"product": ""},
        {"product": 5},
        {"product": None},
        {"product": "p", "count": "1"},
        {"product": "p", "count": 0},
        {"product": "p", "count": 1.5},
        {"product": "p", "tags": ["a", 1]},
        {"product": "p", "colour": "red"},
        {"product": "p", "count": math.nan},
        {"product": "\ud800"},
        {"product": nested(100_000)},
        {"product": TEN_MB},
        {"product": "p", "count": 10**5_000},
    ],
    ids=itertools.count(),
)
def test_a_schema_refuses_what_does_not_fit(arguments: dict[str, Any], guard: Guard) -> None:
    """Arguments are held against the JSON Schema that the tool came with, unknown names included."""
    orders: list[Any] = []
    tool = guard.protect(
        lambda **given: orders.append(given), name="order", input_schema=SCHEMA, effect="write",
        per="call",
    )  # fmt: skip
    with guard.run("orders"), pytest.raises(ContractViolation):
        tool(**arguments)
    assert (orders, guard.effects.list()) == ([], [])


@pytest.mark.parametrize("count", [2**53, 2**63 + 1, 10**30, 3.0])
def test_a_schema_takes_every_json_integer(count: Any, guard: Guard) -> None:
    """Integers beyond 2**53, as ids often are, fit `integer` on their way in and out."""
    tool = guard.protect(
        lambda **given: given,
        name="order",
        input_schema=SCHEMA,
        output_schema=SCHEMA,
        effect="read",
    )
    with guard.run("orders"):
        assert tool(product="p", count=count) == {"product": "p", "count": count}


def test_a_schema_checks_results_too(guard: Guard) -> None:
    """A result that does not fit the output schema leaves the write in doubt."""
    tool = guard.protect(
        lambda product: {"id": product}, name="order", effect="write", key="{product}",
        input_schema={"type": "object", "properties": {"product": {}}},
        output_schema={"type": "object", "properties": {"id": {"type": "string"}}},
    )  # fmt: skip
    with guard.run("orders"):
        assert tool(product="p") == tool(product="p") == {"id": "p"}
        with pytest.raises(ContractViolation, match="something else than its schema says"):
            tool(product=5)
    assert [effect.doubt_reason for effect in guard.effects.list("in_doubt")] == ["output_contract"]


def test_contracts_drift_is_visible(guard: Guard) -> None:
    """Another shape of the arguments is another contract version in the record."""

    def make(annotation: Any) -> Any:
        def work(x: Any) -> str:
            return str(x)

        work.__annotations__["x"] = annotation
        return as_write(work)

    with guard.run("drift"):
        for annotation in (int, int, str):
            make(annotation)("1")
    versions = [effect.contract_version for effect in guard.effects.list()]
    assert len(set(versions)) == 2


def test_what_is_refused_for_its_size_is_not_recorded(guard: Guard) -> None:
    """Refusing a huge argument leaves no copy of it in the record."""
    with guard.run("bad") as run, pytest.raises(ContractViolation):
        as_write(order)(TEN_MB)
    assert sum(len(str(event)) for event in guard.runs.events(run.id)) < 5_000


def test_verified_results_are_checked_values(guard: Guard) -> None:
    """Verifiers get arguments and result as the contract made them."""
    seen: list[Any] = []

    def look(arguments: Any, result: Any) -> bool:
        seen.append((arguments, result))
        return True

    def price(line: Line) -> Decimal:
        return line.price

    with guard.run("prices"):
        verified_by(look)(as_write(price))({"product": "p", "price": "2.50"})
    assert seen == [({"line": Line(product="p", price=Decimal("2.50"))}, Decimal("2.50"))]


def test_an_annotation_that_nothing_defines_is_refused_before_the_first_call(guard: Guard) -> None:
    """A type that only a type checker can see is named when the tool is bound."""

    @tool_contract(effect="read")
    def look(ticket: Missing) -> str:  # type: ignore[name-defined]  # noqa: F821 - the test is about this
        return str(ticket)

    (problem,) = guard.check([look])
    assert problem == (
        "look: its arguments cannot be checked: name 'Missing' is not defined;"
        " import it for real, not under TYPE_CHECKING"
    )
