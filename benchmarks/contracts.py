"""Contracts that come as JSON Schema: bfcl-eval's calls through plain jsonschema and through ours."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .laps import Caller, Place, Subject, SyncWork, need, timed
from .subjects import needs_agentguard, new_guard

if TYPE_CHECKING:
    from tests.external.bfcl import SchemaCall

Check = Callable[[dict[str, Any]], object]


def valid_calls() -> list[SchemaCall]:
    """Return the ground truths that fit their schemas, each with its schema."""
    need("bfcl-eval", "bfcl_eval")
    need("jsonschema", "jsonschema")
    from jsonschema import Draft202012Validator

    from tests.external.bfcl import schema_calls

    return [
        call
        for call in schema_calls()
        if call.arguments.keys() <= call.schema["properties"].keys()
        and Draft202012Validator(call.schema).is_valid(call.arguments)
    ]


def in_turn(checks: list[tuple[Check, dict[str, Any]]]) -> SyncWork:
    """Make work whose every step is the next call of the workload, over and over."""
    endless = itertools.cycle(checks)

    def step(_ticket: str) -> None:
        check, arguments = next(endless)
        check(arguments)

    return lambda caller, steps: timed(step, caller.tickets(steps))


@contextmanager
def plain(place: Place) -> Iterator[SyncWork]:
    """Plain jsonschema, its validators made beforehand."""
    calls = valid_calls()
    from jsonschema import Draft202012Validator

    yield in_turn([(Draft202012Validator(call.schema).validate, call.arguments) for call in calls])


@needs_agentguard
@contextmanager
def contract(place: Place) -> Iterator[SyncWork]:
    """The contract of a protected tool: arguments in, validated arguments out, unknown ones refused."""
    guard = new_guard(place)

    def reads(call: SchemaCall) -> Check:
        tool: Any = guard.protect(dict, name=call.id, effect="read", input_schema=call.schema)
        read = guard.bind(tool.__agentguard__).arguments.read
        return lambda arguments: read(None, (), arguments)

    yield in_turn([(reads(call), call.arguments) for call in valid_calls()])


@needs_agentguard
@contextmanager
def whole_read(place: Place) -> Iterator[SyncWork]:
    """The whole guarded read of such a tool: decided, counted, hashed and recorded besides."""
    guard = new_guard(place)

    def calls(call: SchemaCall) -> Check:
        tool = guard.protect(dict, name=call.id, effect="read", input_schema=call.schema)
        return lambda arguments: tool(**arguments)

    work = in_turn([(calls(call), call.arguments) for call in valid_calls()])

    def in_a_run(caller: Caller, steps: int) -> list[float]:
        with guard.run("bench", run_id=caller.name):
            return work(caller, steps)

    yield in_a_run


CONTRACTS = [
    Subject("plain jsonschema", "contracts", "floor", plain),
    Subject("contract of protect", "contracts", "ours", contract),
    Subject("guarded read by schema", "contracts", "ours", whole_read),
]
