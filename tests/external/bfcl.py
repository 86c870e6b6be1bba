"""The public workload `bfcl-eval`: stateful APIs with their tasks, and functions with their calls.

Only its data and its API classes are used; nothing of it needs a model or the network.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import inspect
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import bfcl_eval
from bfcl_eval.constants.executable_backend_config import (
    CLASS_FILE_PATH_MAPPING,
    MULTI_TURN_FUNC_DOC_FILE_MAPPING,
    STATELESS_CLASSES,
)
from bfcl_eval.constants.type_mappings import GORILLA_TO_OPENAPI

DATA = Path(bfcl_eval.__file__).parent / "data"
Apis = dict[str, Any]
"""The instances of a task's API classes, by class name."""


def rows(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


# Tasks of several turns on stateful APIs.


@dataclass(frozen=True)
class Step:
    """One call of a task's ground truth."""

    id: str
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def owner(self, apis: Apis) -> str:
        """Return the class that has the method."""
        (name,) = (name for name, api in apis.items() if hasattr(api, self.method))
        return name

    def call(self, apis: Apis) -> Any:
        """Call it, unguarded."""
        return getattr(apis[self.owner(apis)], self.method)(**self.arguments(apis))

    def arguments(self, apis: Apis) -> dict[str, Any]:
        """Return all arguments by name, new ones for every delivery, as a model gives them."""
        method = getattr(apis[self.owner(apis)], self.method)
        return copy.deepcopy(inspect.signature(method).bind(*self.args, **self.kwargs).arguments)


@dataclass(frozen=True)
class Task:
    """A task: where it starts, and the calls that solve it."""

    id: str
    classes: list[str]
    start: dict[str, Any]
    steps: list[Step]

    def apis(self) -> Apis:
        """Make fresh instances in the state in which the task starts."""
        made: Apis = {}
        for name in self.classes:
            made[name] = getattr(importlib.import_module(CLASS_FILE_PATH_MAPPING[name]), name)()
            if name not in STATELESS_CLASSES:
                made[name]._load_scenario(copy.deepcopy(self.start.get(name, {})))
        return made


@cache
def tasks() -> list[Task]:
    """Return the 200 tasks of the category multi_turn_base."""
    name = "BFCL_v4_multi_turn_base.json"
    truth = {row["id"]: row["ground_truth"] for row in rows(DATA / "possible_answer" / name)}
    return [
        Task(row["id"], row["involved_classes"], row["initial_config"], _steps(truth[row["id"]]))
        for row in rows(DATA / name)
    ]


def _steps(turns: list[list[str]]) -> list[Step]:
    return [
        _step(f"turn {turn}, call {number}", text)
        for turn, calls in enumerate(turns)
        for number, text in enumerate(calls)
    ]


def _step(call_id: str, text: str) -> Step:
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    kwargs = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    args = tuple(ast.literal_eval(each) for each in call.args)
    return Step(call_id, ast.unparse(call.func), args, kwargs)


@cache
def schema_of(api: str, method: str) -> dict[str, Any]:
    """Return the JSON Schema of a method's arguments."""
    documented = rows(DATA / "multi_turn_func_doc" / MULTI_TURN_FUNC_DOC_FILE_MAPPING[api])
    (parameters,) = (row["parameters"] for row in documented if row["name"] == method)
    schema = _json_schema(parameters)
    if method == "close_ticket":  # one task's own tickets are numbered with texts
        schema["properties"]["ticket_id"]["type"] = ["integer", "string"]
    return schema


_NO_STATE = {"_api_description", "_last_modified", "_random", "parent"}


def state(value: Any) -> Any:
    """Return the state of APIs as plain data, private state too, without clocks and dice."""
    if isinstance(value, dict):
        return {str(key): state(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [state(item) for item in value]
    if hasattr(value, "__dict__") and not isinstance(value, random.Random):
        return {key: state(item) for key, item in vars(value).items() if key not in _NO_STATE}
    return value


@cache
def solved() -> dict[str, Any]:
    """Return the final state of each task, every call made once."""
    return {task.id: state(played(task)) for task in tasks()}


def played(task: Task, deliveries: int = 1) -> Apis:
    """Make a task's calls unguarded, those that write as often as *deliveries* says."""
    apis = task.apis()
    for step in task.steps:
        for _ in range(deliveries if (step.owner(apis), step.method) in writers() else 1):
            with contextlib.suppress(ValueError, KeyError):  # some APIs refuse a repeat this way
                step.call(apis)
    return apis


@cache
def writers() -> dict[tuple[str, str], int]:
    """Return the methods that change state in any task, and how often they do."""
    found: dict[tuple[str, str], int] = {}
    for task in tasks():
        apis = task.apis()
        for step in task.steps:
            before, method = state(apis), (step.owner(apis), step.method)
            step.call(apis)
            if state(apis) != before:
                found[method] = found.get(method, 0) + 1
    return found


# Functions that come as JSON Schema, and calls of them.


@dataclass(frozen=True)
class SchemaCall:
    """A call of the ground truths, and the schema of its function."""

    id: str
    function: str
    schema: dict[str, Any]
    arguments: dict[str, Any]


@cache
def schema_calls() -> list[SchemaCall]:
    """Return every call of the ground truths that names its function and arguments."""
    found: list[SchemaCall] = []
    for answers in sorted((DATA / "possible_answer").glob("*.json")):
        questions = {row["id"]: row for row in rows(DATA / answers.name)}
        for answer in rows(answers):
            functions = {f["name"]: f for f in questions[answer["id"]].get("function", ())}
            found += _calls(answer, functions)
    return found


def _calls(answer: dict[str, Any], functions: dict[str, Any]) -> Iterator[SchemaCall]:
    calls = [each for each in answer["ground_truth"] if isinstance(each, dict)]
    for number, call in enumerate(calls):
        for name, options in call.items():
            schema = _json_schema(functions[name]["parameters"])
            possible = {
                n: a for n, a in options.items() if n in schema["properties"] or "" not in a
            }
            yield SchemaCall(f"{answer['id']}-{number}", name, schema, _chosen(possible))


def _json_schema(parameters: dict[str, Any]) -> dict[str, Any]:
    """Turn upstream's type names into JSON Schema's, as its model handlers do."""
    schema = copy.deepcopy(parameters)
    schema["type"] = "object"
    _rename(schema)
    return schema


def _rename(schema: dict[str, Any]) -> None:
    parts = [*schema.get("properties", {}).values()]
    for part in [*parts, schema["items"]] if "items" in schema else parts:
        part["type"] = GORILLA_TO_OPENAPI.get(part.get("type", "string"), "string")
        _rename(part)


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    """Choose the first of the possible answers to each argument; `""` stands for leaving it out."""
    return {
        name: _first(answers)
        for name, answers in options.items()
        if not (isinstance(answers, list) and answers and answers[0] == "")
    }


def _first(answers: Any) -> Any:
    return _plain(answers[0]) if isinstance(answers, list) and answers else answers


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return _chosen(value)
    if isinstance(value, list):
        return [_plain(item) if isinstance(item, dict) else item for item in value]
    return value


_OTHER = {
    "string": 7, "integer": "seven", "number": "seven", "boolean": "yes", "array": {"a": 1},
    "object": ["a"],
}  # fmt: skip


def mutants(call: SchemaCall) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield wrong calls: each required argument missing, one unknown, each of a wrong type."""
    for name in call.schema.get("required", ()):
        yield f"{name} missing", {k: v for k, v in call.arguments.items() if k != name}
    yield "unknown", {**call.arguments, "nobody_knows_this": 1}
    for name in call.arguments.keys() & call.schema["properties"].keys():
        kind = call.schema["properties"][name]["type"]
        yield f"{name} is no {kind}", {**call.arguments, name: _OTHER[kind]}
