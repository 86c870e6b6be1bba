"""Other people's workload: 200 tasks on stateful APIs, 3,302 calls of functions with JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agentguard import ContractViolation, Guard
from agentguard.run import Run
from tests.external import bfcl


class Guarded:
    """The API methods that write, under one guard; *apis* is the world they write to."""

    def __init__(self, url: str) -> None:
        self.guard, self.apis = Guard(url), bfcl.Apis()
        self.tools = {method: self._tool(*method) for method in bfcl.writers()}

    def _tool(self, api: str, method: str) -> Any:
        def call(**arguments: Any) -> Any:
            return getattr(self.apis[api], method)(**arguments)

        schema = bfcl.schema_of(api, method)
        return self.guard.protect(
            call, name=f"{api}.{method}", input_schema=schema, effect="write", per="call"
        )

    def deliver(self, run: Run, step: bfcl.Step) -> Any:
        """Deliver one call of the model: a write goes through the guard, anything else does not."""
        if not self.guards(step):
            return step.call(self.apis)
        with run.tool_call(step.id):
            return self.tools[step.owner(self.apis), step.method](**step.arguments(self.apis))

    def guards(self, step: bfcl.Step) -> bool:
        """Tell whether a call is one of a method that writes."""
        return (step.owner(self.apis), step.method) in self.tools


@pytest.fixture(name="guarded", scope="module")
def guarded_in_memory() -> Iterator[Guarded]:
    """The APIs, guarded on a store in memory."""
    guarded = Guarded("memory://")
    yield guarded
    guarded.guard.close()


def test_the_workload_is_the_known_one() -> None:
    """200 tasks, 657 calls that change state by 44 methods of 7 classes, 3,302 calls with a schema."""
    writers = bfcl.writers()
    assert (len(bfcl.tasks()), sum(writers.values()), len(writers)) == (200, 657, 44)
    assert len({name for name, _ in writers}) == 7
    assert len(bfcl.schema_calls()) == 3_302


def test_without_a_guard_two_deliveries_spoil_most_tasks() -> None:
    """Every write delivered twice, and 72 of 200 tasks end as they should: the rest is damage."""
    right = [is_solved(task, bfcl.played(task, 2)) for task in bfcl.tasks()]
    assert right.count(True) == 72


def is_solved(task: bfcl.Task, apis: bfcl.Apis) -> bool:
    """Tell whether a task ended as if every call had been made once."""
    return bool(bfcl.state(apis) == bfcl.solved()[task.id])


def test_guarded_writes_delivered_twice_end_right(guarded: Guarded) -> None:
    """Guarded per call, 200 of 200 tasks end as they should, and a repeat gets the first result."""
    right, same = [], []
    for task in bfcl.tasks():
        guarded.apis = task.apis()
        with guarded.guard.run("bfcl", run_id=task.id) as run:
            for step in task.steps:
                first = guarded.deliver(run, step)
                if guarded.guards(step):
                    same.append(guarded.deliver(run, step) == first)
        right.append(is_solved(task, guarded.apis))
    assert (right.count(True), same.count(True), len(same)) == (200, 682, 682)


def test_a_resumed_run_repeats_nothing(tmp_path: Path) -> None:
    """A second guard that is handed all calls of a task again goes on where the first stopped."""
    url = f"sqlite:///{tmp_path}/a.db"
    before, after = Guarded(url), Guarded(url)
    right, same = [], []
    for task in bfcl.tasks():
        before.apis = after.apis = task.apis()
        half = len(task.steps) // 2
        with before.guard.run("bfcl", run_id=task.id) as run:
            done = [(step, before.deliver(run, step)) for step in task.steps[:half]]
        with after.guard.run("bfcl", run_id=task.id) as run:
            same += [
                after.deliver(run, step) == first for step, first in done if after.guards(step)
            ]
            for step in task.steps[half:]:
                after.deliver(run, step)
        right.append(is_solved(task, after.apis))
    assert right.count(True) == 200
    assert all(same)
    for each in (before, after):
        each.guard.close()


# Calls of functions that come with a JSON Schema.


class Counting:
    """A tool behind a schema, and how often its body ran."""

    def __init__(self, guard: Guard, call: bfcl.SchemaCall) -> None:
        self.ran = 0
        self.tool = guard.protect(self._work, name=call.id, effect="read", input_schema=call.schema)

    def _work(self, **_: Any) -> None:
        self.ran += 1

    def takes(self, arguments: dict[str, Any]) -> bool:
        """Call it and tell whether the body ran."""
        before = self.ran
        try:
            self.tool(**arguments)
        except ContractViolation:
            assert self.ran == before
            return False
        assert self.ran == before + 1
        return True


@pytest.fixture(name="schema_guard", scope="module")
def guard_for_schemas() -> Iterator[Guard]:
    """A guard in a run."""
    guard = Guard("memory://")
    with guard.run("schemas"):
        yield guard
    guard.close()


def plainly_valid(call: bfcl.SchemaCall) -> bool:
    """Tell what plain `jsonschema` says of a call."""
    return bool(jsonschema.Draft202012Validator(call.schema).is_valid(call.arguments))


def names_only_known(call: bfcl.SchemaCall) -> bool:
    """Tell whether a call keeps to the arguments that its schema names."""
    return set(call.arguments) <= set(call.schema["properties"])


def test_what_plain_jsonschema_accepts_is_accepted(schema_guard: Guard) -> None:
    """Ground truths that fit their schema run, others do not; only an unknown name is refused beyond."""
    calls = bfcl.schema_calls()
    accepted = [Counting(schema_guard, call).takes(call.arguments) for call in calls]
    assert accepted == [plainly_valid(call) and names_only_known(call) for call in calls]
    assert (accepted.count(True), sum(map(plainly_valid, calls))) == (3_253, 3_254)


def test_every_mutant_is_refused(schema_guard: Guard) -> None:
    """With an argument missing, unknown or of a wrong type, no valid call runs any more."""
    survivors, tried = [], 0
    for call in bfcl.schema_calls():
        if not plainly_valid(call):
            continue
        tool = Counting(schema_guard, call)
        for how, arguments in bfcl.mutants(call):
            tried += 1
            if tool.takes(arguments):
                survivors.append((call.id, how))
    assert survivors == []
    assert tried > 10_000
