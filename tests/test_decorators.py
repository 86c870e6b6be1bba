"""The decorators: one wrapper, no order on the page, invisible to everybody who looks at the tool."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.tools import StructuredTool
from langchain_core.tools import tool as langchain_tool
from pydantic import BaseModel, Field

from agentguard import (
    ApprovalRequired,
    BudgetExceeded,
    ConfigurationError,
    ContractViolation,
    Guard,
    IdempotencyConflict,
    Verdict,
    VerificationFailed,
    budget,
    configure,
    current_run,
    idempotent,
    requires_approval,
    tool_contract,
    verified_by,
)

Tool = Callable[..., Any]
write = tool_contract(effect="write")
read = tool_contract(effect="read")
by_ticket = idempotent(key="refund:{ticket_id}")


@pytest.fixture(name="guard")
def guard_without_a_file() -> Iterator[Guard]:
    """A guard whose store lives as long as the test."""
    guard = Guard("memory://")
    yield guard
    guard.close()


def is_not_unlucky(arguments: Any, result: Any) -> Verdict:
    """Do not confirm thirteen."""
    return Verdict(passed=arguments["amount_usd"] != 13, reason="thirteen is unlucky")


FIVE: dict[str, Callable[[Tool], Tool]] = {
    "contract": tool_contract(effect="write", facts={"refund_usd": "amount_usd"}),
    "idempotent": by_ticket,
    "approval": requires_approval(when="amount_usd > 50"),
    "budget": budget(max_spend_usd=100, cost="amount_usd"),
    "verified": verified_by(is_not_unlucky),
}
ORDERS = list(itertools.permutations(FIVE))


def decorated(order: tuple[str, ...], function: Tool) -> Tool:
    """Decorate *function*, the last of *order* nearest to it."""
    for name in reversed(order):
        function = FIVE[name](function)
    return function


def ended(tool: Tool, ticket_id: str, amount: Any) -> Any:
    """Call a refund and return its result, or the kind of its refusal."""
    try:
        return tool(ticket_id, amount)
    except (ApprovalRequired, BudgetExceeded, IdempotencyConflict, VerificationFailed) as error:
        return error.kind


EVERYTHING = [("T-1", 20), ("T-1", "20.00"), ("T-1", 30), ("T-2", 60), ("T-4", 70)]
AND_WHAT_COMES_OF_IT = [
    "refunded T-1",
    "refunded T-1",
    "idempotency_conflict",
    "approval_required",
    "approval_required",
]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_the_order_of_the_decorators_has_no_meaning(order: tuple[str, ...], guard: Guard) -> None:
    """All 120 orders of five decorators replay, refuse, ask, reserve and verify alike."""
    refunds: list[str] = []

    def refund(ticket_id: str, amount_usd: Decimal) -> str:
        refunds.append(f"{ticket_id} {amount_usd}")
        return f"refunded {ticket_id}"

    tool = decorated(order, refund)
    with guard.run("refunds"):
        assert [ended(tool, *call) for call in EVERYTHING] == AND_WHAT_COMES_OF_IT
        for approval in guard.approvals.list("pending"):
            guard.approvals.decide(approval.id, "approve", by="dana")
        assert ended(tool, "T-2", 60) == "refunded T-2"
        assert ended(tool, "T-4", 70) == "budget_exceeded"  # 20 and 60 are spent
        assert ended(tool, "T-3", 13) == "verification_failed"  # in doubt: the last write
    assert refunds == ["T-1 20", "T-2 60", "T-3 13"]


@pytest.mark.parametrize("order", ORDERS[::24], ids="-".join)
async def test_an_async_tool_behaves_like_a_sync_one(order: tuple[str, ...], guard: Guard) -> None:
    """The same calls of an awaited tool end in the same way."""
    refunds: list[str] = []

    async def refund(ticket_id: str, amount_usd: Decimal) -> str:
        refunds.append(ticket_id)
        return f"refunded {ticket_id}"

    tool, ends = decorated(order, refund), []
    async with guard.run("refunds"):
        for call in EVERYTHING:
            try:
                ends.append(await tool(*call))
            except (ApprovalRequired, IdempotencyConflict) as error:
                ends.append(error.kind)
        with pytest.raises(VerificationFailed):
            await tool("T-3", 13)
    assert (ends, refunds) == (AND_WHAT_COMES_OF_IT, ["T-1", "T-3"])


# What everybody else sees of a guarded tool.


class Receipt(BaseModel):
    """A receipt."""

    ticket_id: str


def refund_ticket(
    ticket_id: str, amount_usd: Annotated[Decimal, Field(gt=0)], note: str | None = None
) -> Receipt:
    """Refund a ticket.

    Args:
        ticket_id: which one.
        amount_usd: how much.
        note: why.
    """
    del amount_usd, note
    return Receipt(ticket_id=ticket_id)


async def refund_ticket_later(ticket_id: str, amount_usd: float = 1.5) -> Receipt:
    """Refund a ticket, awaited."""
    del amount_usd
    return Receipt(ticket_id=ticket_id)


both = pytest.mark.parametrize("bare", [refund_ticket, refund_ticket_later])


@both
def test_a_guarded_tool_looks_like_its_function(bare: Tool) -> None:
    """Signature, name, docstring, module, type hints and colour are the function's own."""
    tool = decorated(tuple(FIVE), bare)
    looks: list[Callable[[Any], Any]] = [
        inspect.signature,
        inspect.getdoc,
        inspect.getsource,
        inspect.isfunction,
        inspect.iscoroutinefunction,
        lambda function: str(typing.get_type_hints(function, include_extras=True)),
        lambda function: (function.__name__, function.__qualname__, function.__module__),
        lambda function: (function.__annotations__, function.__defaults__),
    ]
    assert [look(tool) for look in looks] == [look(bare) for look in looks]


@both
def test_langchain_makes_the_same_tool_of_it(bare: Tool) -> None:
    """`@tool` and `StructuredTool.from_function` show the model the same guarded or bare."""
    guarded: Any = write(by_ticket(bare))
    options: dict[str, Any] = {"parse_docstring": bare is refund_ticket}
    slot = "coroutine" if inspect.iscoroutinefunction(bare) else "func"
    ways: list[Callable[[Any], Any]] = [
        lambda function: langchain_tool(function, **options),
        lambda function: StructuredTool.from_function(**{slot: function}, **options),
    ]
    for make in ways:
        mine, theirs = make(guarded), make(bare)
        assert (mine.name, mine.description) == (theirs.name, theirs.description)
        assert mine.args_schema.model_json_schema() == theirs.args_schema.model_json_schema()


def test_langchain_calls_the_guard(guard: Guard) -> None:
    """A guarded function under `@tool` is guarded when the runtime invokes the tool object."""
    refunds: list[str] = []

    @langchain_tool
    @write
    @by_ticket
    def refund(ticket_id: str) -> str:
        """Refund a ticket."""
        refunds.append(ticket_id)
        return ticket_id

    with guard.run("refunds"):
        assert [refund.invoke({"ticket_id": "T-1"}) for _ in range(3)] == ["T-1"] * 3
    assert refunds == ["T-1"]


def test_copies_of_a_tool_object_stay_guarded(guard: Guard) -> None:
    """A deep copy of a runtime's tool holds the same guarded function and the same effect."""
    refunds: list[str] = []

    def refund(ticket_id: str) -> str:
        """Refund a ticket."""
        refunds.append(ticket_id)
        return ticket_id

    guarded = write(by_ticket(refund))
    tool = StructuredTool.from_function(guarded)
    with guard.run("refunds", loops="off"):
        for each in (tool, tool.model_copy(deep=True), copy.deepcopy(tool), copy.copy(tool)):
            assert each.invoke({"ticket_id": "T-1"}) == "T-1"
    assert refunds == ["T-1"]
    assert copy.deepcopy(guarded) is copy.copy(guarded) is guarded


# Methods and partials.


class Till:
    """Refunds money, and remembers it."""

    refunds: typing.ClassVar[list[str]] = []

    def __init__(self, name: str = "till") -> None:
        self.name = name

    @write
    @idempotent(key="{ticket_id}")
    def refund(self, ticket_id: str, amount: int = 1) -> str:
        """Refund."""
        self.refunds.append(f"{self.name} {ticket_id} {amount}")
        return f"{ticket_id} {amount}"

    @classmethod
    @write
    @idempotent(key="{ticket_id}")
    def refund_by_class(cls, ticket_id: str) -> str:
        """Refund."""
        cls.refunds.append(f"{cls.__name__} {ticket_id}")
        return ticket_id

    @write
    @idempotent(key="{ticket_id}")
    @classmethod
    def refund_by_wrapped_class(cls, ticket_id: str) -> str:
        """Refund."""
        cls.refunds.append(f"{cls.__name__} {ticket_id}")
        return ticket_id

    @staticmethod
    @write
    @idempotent(key="{ticket_id}")
    def refund_statically(ticket_id: str) -> str:
        """Refund."""
        Till.refunds.append(ticket_id)
        return ticket_id

    @write
    @idempotent(key="{ticket_id}")
    @staticmethod
    def refund_statically_wrapped(ticket_id: str) -> str:
        """Refund."""
        Till.refunds.append(ticket_id)
        return ticket_id


@pytest.fixture(name="till")
def till_without_history() -> Till:
    """A till, its list of refunds empty."""
    Till.refunds.clear()
    return Till()


def test_a_method_is_guarded_bound_and_unbound(guard: Guard, till: Till) -> None:
    """However a method is reached, its receiver is no argument and one key is one effect."""
    with guard.run("refunds", loops="off"):
        calls = [till.refund("T-1"), till.refund(ticket_id="T-1"), Till.refund(till, "T-1", 1)]
        calls.append(functools.partial(till.refund, amount=1)("T-1"))
    assert calls == ["T-1 1"] * 4
    assert till.refunds == ["till T-1 1"]


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("refund_by_class", "Till T-1"),
        ("refund_by_wrapped_class", "Till T-1"),
        ("refund_statically", "T-1"),
        ("refund_statically_wrapped", "T-1"),
    ],
)
def test_class_and_static_methods_are_guarded(
    name: str, effect: str, guard: Guard, till: Till
) -> None:
    """Class and static methods work on the class and on its instances, in either nesting."""
    with guard.run("refunds"):
        calls = [getattr(owner, name)(*["T-1"]) for owner in (Till, till, till)]
    assert (calls, till.refunds) == (["T-1"] * 3, [effect])


def test_partials_of_a_tool_and_tools_of_a_partial(guard: Guard) -> None:
    """A partial of a guarded function is guarded, and a partial can be guarded itself."""
    refunds: list[str] = []

    def refund(ticket_id: str, amount: int) -> str:
        refunds.append(f"{ticket_id} {amount}")
        return ticket_id

    outer = functools.partial(write(by_ticket(refund)), amount=5)
    inner = guard.protect(
        functools.partial(refund, amount=7), name="refund_seven", effect="write", key="{ticket_id}"
    )
    with guard.run("refunds"):
        assert [outer("T-1"), outer("T-1"), inner("T-1"), inner(ticket_id="T-1")] == ["T-1"] * 4
    assert refunds == ["T-1 5", "T-1 7"]


# What is refused where the decorator runs.


def refund_plainly(ticket_id: str) -> str:
    """Refund a ticket."""
    return ticket_id


def test_a_tool_object_is_refused() -> None:
    """A decorator above a runtime's tool object would never run, so it is refused there."""
    made = langchain_tool(refund_plainly)
    tools: list[Any] = [made, StructuredTool.from_function(refund_plainly)]
    for tool in tools:
        with pytest.raises(
            ConfigurationError, match=r"StructuredTool, not a function.*below @tool"
        ):
            write(tool)


@pytest.mark.parametrize("thing", [Till, "refund", 7, None, Till()])
def test_what_is_no_function_is_refused(thing: Any) -> None:
    """Classes, texts and objects are refused with a sentence."""
    with pytest.raises(ConfigurationError, match="not a function"):
        write(thing)


def test_a_foreign_decorator_between_ours_is_refused() -> None:
    """A decorator of somebody else between two of ours would hide the first from the second."""

    def foreign(function: Tool) -> Tool:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    with pytest.raises(ConfigurationError, match="another decorator stands between"):
        write(foreign(by_ticket(refund_plainly)))


def test_a_foreign_decorator_below_ours_is_part_of_the_body(guard: Guard) -> None:
    """What stands below all of ours runs once an effect, like the function."""
    runs: list[str] = []

    def counted(function: Tool) -> Tool:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            runs.append("ran")
            return function(*args, **kwargs)

        return wrapper

    tool = write(by_ticket(counted(refund_plainly)))
    with guard.run("refunds"):
        assert [tool("T-1"), tool("T-1")] == ["T-1", "T-1"]
    assert runs == ["ran"]


@pytest.mark.parametrize("name", FIVE)
def test_the_same_decorator_twice_is_refused(name: str) -> None:
    """Two of a kind contradict each other, whatever stands between them."""

    def refund(ticket_id: str, amount_usd: Decimal) -> str:
        return ticket_id

    whole = decorated(tuple(FIVE), refund)
    with pytest.raises(
        ConfigurationError, match=r"refund: .* is declared twice, as .* and as .*; keep one"
    ):
        FIVE[name](whole)


def test_generators_are_refused() -> None:
    """A generator has no one result to record; both kinds are refused."""

    def refunds(ticket_id: str) -> Iterator[str]:
        yield ticket_id

    async def later(ticket_id: str) -> AsyncIterator[str]:
        yield ticket_id

    for generator in (refunds, later):
        with pytest.raises(ConfigurationError, match="is a generator: a guarded tool returns one"):
            write(generator)


def test_a_timeout_of_a_sync_tool_needs_an_isolation() -> None:
    """Python cannot stop a sync call, so a bare timeout is refused and the choices are named."""
    with pytest.raises(ConfigurationError, match=r'isolation="thread" .* or "process"'):
        tool_contract(effect="read", timeout=1)(refund_plainly)
    tool_contract(effect="read", timeout=1)(refund_ticket_later)
    tool_contract(effect="read", timeout=1, isolation="thread")(refund_plainly)


def test_an_isolation_of_an_async_tool_is_refused() -> None:
    """An async body stays on its event loop, so an isolation would only be pretended."""
    with pytest.raises(ConfigurationError, match="isolation is for sync functions"):
        tool_contract(effect="read", isolation="process")(refund_ticket_later)


# What is declared wrongly is given as no checker would let it pass.
CONTRADICTIONS: list[tuple[Any, dict[str, Any], str]] = [
    (tool_contract, {"effect": "maybe"}, 'effect is "read", "write" or "forbidden"'),
    (tool_contract, {"effect": "read", "sensitive": ["ssn"]}, "sensitive names 'ssn'"),
    (tool_contract, {"effect": "read", "facts": {"usd": "amount"}}, "facts names 'amount'"),
    (tool_contract, {"effect": "read", "rate_limit": "5 a second"}, "such as 5/second"),
    (tool_contract, {"effect": "read", "timeout": -1, "isolation": "thread"}, "above zero"),
    (tool_contract, {"effect": "read", "isolation": "fork"}, '"thread" or "process"'),
    (tool_contract, {"effect": "read", "classify": "ftp"}, '"http", "doubt" or a callable'),
    (requires_approval, {"when": "amount > 5"}, "amount"),
    (requires_approval, {"quorum": 0}, "from 1 to 10"),
    (requires_approval, {"expires": "30d"}, "at most 7d"),
    (idempotent, {}, "exactly one of them"),
    (idempotent, {"key": "a", "per": "call"}, "exactly one of them"),
    (idempotent, {"key": "{ticket_id}", "retention": "1d"}, "at least 7d"),
    (idempotent, {"key": "{ticket_id}", "on_doubt": "reconcile"}, "needs reconcile="),
    (idempotent, {"key": "{ticket_id}", "on_doubt": "retry_same_key"}, "downstream_dedupe="),
    (budget, {}, "give max_calls, max_spend_usd or cost"),
    (budget, {"max_calls": -1}, "whole number from 0"),
    (budget, {"max_calls": 1, "per": "year"}, "per is one of"),
    (verified_by, {}, "at least one callable"),
]


@pytest.mark.parametrize(("decorator", "options", "sentence"), CONTRADICTIONS)
def test_a_declaration_that_contradicts_itself_is_refused(
    decorator: Any, options: dict[str, Any], sentence: str
) -> None:
    """Each contradiction is refused before the function can be called, and the sentence mends it."""
    with pytest.raises(ConfigurationError, match=sentence):
        decorator(**options)(refund_plainly)


# What is refused at first use, or by `check`, before any effect.


@pytest.mark.parametrize(
    ("decorate", "sentence"),
    [
        (write, "writes but has no idempotency key"),
        (by_ticket, "has no contract"),
        (lambda f: write(idempotent(key="{order_id}")(f)), "names 'order_id'"),
        (lambda f: write(idempotent(key="refund")(f)), "names no argument"),
        (lambda f: write(idempotent(key="{ticket_id")(f)), "is no template"),
        (lambda f: write(idempotent(key="{ticket_id}", volatile=["when"])(f)), "volatile names"),
        (lambda f: write(by_ticket(budget(cost="price")(f))), "cost='price' is neither"),
        (lambda f: write(by_ticket(budget(max_spend_usd=5)(f))), "needs cost="),
    ],
)
def test_an_incomplete_tool_never_runs(
    decorate: Callable[[Tool], Tool], sentence: str, guard: Guard
) -> None:
    """`check` names the problem, the first call is refused with it, and nothing happens."""
    refunds: list[str] = []

    def refund(ticket_id: str) -> str:
        refunds.append(ticket_id)
        return ticket_id

    tool = decorate(refund)
    (problem,) = guard.check([tool])
    assert sentence in problem
    with guard.run("refunds"), pytest.raises(ConfigurationError, match=sentence):
        tool("T-1")
    assert refunds == []


def test_check_finds_nothing_wrong_with_good_tools(guard: Guard) -> None:
    """`check` is silent about tools that can be used, and names what is no tool of ours."""
    assert guard.check([write(by_ticket(refund_plainly)), read(refund_ticket)]) == []
    assert guard.check([refund_plainly]) == ["refund_plainly has no agentguard decorator"]


def test_arguments_without_names_are_refused(guard: Guard) -> None:
    """A tool that takes anything has no schema; the sentence says what to do."""

    def refund(*tickets: str, **more: str) -> str:
        return str((tickets, more))

    (problem,) = guard.check([read(refund)])
    assert "*tickets has no schema" in problem


# One call, however it is written.


def payload(guard: Guard, call: Callable[[], Any]) -> str:
    """Return the payload hash under which *call* is recorded."""
    with guard.run("refunds") as run:
        call()
    (decided,) = [e for e in guard.runs.events(run.id) if "payload_hash" in e.data]
    return str(decided.data["payload_hash"])


def test_every_form_of_a_call_is_one_payload(guard: Guard) -> None:
    """Positions, names, defaults filled or not, coerced or not: one call has one payload hash."""

    @read
    def pay(amount: Decimal, to: str = "bob", note: str | None = None, urgent: bool = False) -> str:  # noqa: FBT001, FBT002
        return f"{amount} {to} {note} {urgent}"

    forms: list[Callable[[], Any]] = [
        lambda: pay(3),  # type: ignore[arg-type]
        lambda: pay("3"),  # type: ignore[arg-type]
        lambda: pay("3.00"),  # type: ignore[arg-type]
        lambda: pay(3.0),  # type: ignore[arg-type]
        lambda: pay(Decimal("3.0"), "bob", None, False),
        lambda: pay(amount=Decimal(3), to="bob"),
        lambda: pay("3", to="bob", note=None, urgent="false"),  # type: ignore[arg-type]
    ]
    assert len({payload(guard, form) for form in forms}) == 1
    others = [lambda: pay(Decimal(4)), lambda: pay(Decimal(3), "eve")]
    assert len({payload(guard, form) for form in [*forms, *others]}) == 3


def test_an_argument_given_twice_or_beyond_the_end_is_refused(guard: Guard, till: Till) -> None:
    """What Python itself would refuse is refused as a contract violation, before any effect."""
    refund: Any = Till.refund_statically
    calls: list[Callable[[], Any]] = [
        lambda: refund("T-1", ticket_id="T-1"),
        lambda: refund("T-1", "T-2"),
    ]
    for call in calls:
        with guard.run("refunds"), pytest.raises(ContractViolation):
            call()
    assert till.refunds == []


def test_positional_only_and_keyword_only_arguments_reach_the_body(guard: Guard) -> None:
    """Kinds of parameters are kept when the body is called."""

    @read
    def pay(amount: int, /, to: str, *, note: str = "n") -> str:
        return f"{amount} {to} {note}"

    with guard.run("refunds"):
        assert pay(1, "bob", note="x") == "1 bob x"
        assert pay(1, to="bob") == "1 bob n"


def test_a_tool_sees_its_own_call(guard: Guard) -> None:
    """Inside the body `current_run().call` holds the key to pass downstream, outside nothing."""
    seen: list[Any] = []

    @write
    @by_ticket
    def refund(ticket_id: str) -> str:
        call = current_run().call
        seen.extend([call.idempotency_key[:4], call.fence, call.attempt, call.deadline])
        return ticket_id

    with guard.run("refunds") as run:
        refund("T-1")
        with pytest.raises(ConfigurationError, match="no guarded call here"):
            _ = run.call
    assert seen == ["ag1_", 1, 1, None]


def test_outside_of_any_run_a_call_has_a_run_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decorated function works without a run, on the configured guard, and is recorded."""
    monkeypatch.setattr("agentguard.guard._CONFIGURED", [])
    guard = configure(store=f"sqlite:///{tmp_path}/a.db")
    refunds: list[str] = []

    @write
    @by_ticket
    def refund(ticket_id: str) -> str:
        refunds.append(ticket_id)
        return ticket_id

    assert [refund("T-1"), refund("T-1")] == ["T-1", "T-1"]
    assert refunds == ["T-1"]
    assert [run.workflow for run in guard.runs.list()] == ["refund", "refund"]
    guard.close()


def refund_of(*, note: bool, version: str) -> tuple[Tool, list[str]]:
    """Return the refund tool as one deploy has it, and what it did."""
    done: list[str] = []
    if note:

        @tool_contract(effect="write", name="refund", version=version)
        @idempotent(key="refund:{ticket_id}", volatile=["note"])
        def newer(ticket_id: str, note: str = "") -> str:
            """Refund."""
            done.append(ticket_id)
            return f"{ticket_id} {note}"

        return newer, done

    @tool_contract(effect="write", name="refund", version=version)
    @by_ticket
    def older(ticket_id: str) -> str:
        """Refund."""
        done.append(ticket_id)
        return ticket_id

    return older, done


@pytest.mark.parametrize(("version", "runs"), [("1", []), ("1.4", []), ("2", ["T-1"])])
def test_a_deploy_keeps_the_keys(guard: Guard, version: str, runs: list[str]) -> None:
    """A tool with one more argument has the same keys; only another major version has others."""
    before, _ = refund_of(note=False, version="1")
    after, done = refund_of(note=True, version=version)
    with guard.run("w"):
        before("T-1")
    with guard.run("w"):
        after("T-1", note="again")
    assert done == runs
