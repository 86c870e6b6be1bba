"""Tool safety: schemas, keys, limits of rate and time, errors, doubts and undos of every tool."""

from __future__ import annotations

import inspect
import typing
from typing import TYPE_CHECKING, Any, Final

from .looking import (
    GIVE_TOOLS,
    RUNS_NEEDED,
    about,
    counted,
    enough,
    every_tool,
    every_write,
    failed,
    holds,
    in_file,
    newest_runs,
    no_tools,
    passed,
    percent,
    unknown,
    unusable,
)
from .values import Check, Said

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .project import Project
    from .sample import Sample
    from .subjects import Subject

MOST_TRIES: Final = 5
MOST_LATE: Final = 100
"""One write in so many may have been answered late before that is no longer rare."""
_LOOSE = (Any, object, dict, list, tuple, set, inspect.Parameter.empty)
_SHAPES = {"type", "anyOf", "oneOf", "allOf", "$ref", "enum", "const"}
_GIVE_SCHEMA = "output_schema= of Guard.protect, or a waiver with the reason"
_TELL_FAILURE = {"error", "errors", "ok", "success", "is_error", "failed"}


def _declared(project: Project) -> Iterator[Said]:
    if not project.subjects:
        yield no_tools(project)
    twice = _named_twice(project)
    for subject in project.subjects:
        yield about(subject, _ambiguous() if subject.name in twice else _usable(subject))
    known = {subject.name for subject in project.subjects}
    missing = (project.record.tools - known) if project.record and known else ()
    for name in sorted(missing):
        said = unknown("the record knows calls of it, and it was not given", GIVE_TOOLS)
        yield Said(said.status, said.evidence, said.action, tool=name)


def _named_twice(project: Project) -> set[str]:
    """Return the names of more than one function; a tool object of a framework is its function."""
    functions: dict[str, set[int]] = {}
    for subject in project.subjects:
        functions.setdefault(subject.name, set()).add(id(subject.function))
    return {name for name, found in functions.items() if len(found) > 1}


def _ambiguous() -> Said:
    wrong = "another tool has the same name: what one did under a key is answered for the other"
    return failed(wrong, "name= in @tool_contract, or grade the projects one by one")


def _usable(subject: Subject) -> Said:
    if subject.error is not None:
        return failed(subject.error, "do what the sentence says")
    if subject.effect is None:
        return failed(
            "has no decorator, and nothing stands under tools: in the configuration",
            '@tool_contract(effect="read"), "write" or "forbidden"',
        )
    return passed(f"declared as {subject.effect}")


def _key(subject: Subject, project: Project) -> Said:
    del project
    key = subject.key
    if key is None:
        return failed("has no idempotency key", '@idempotent(key="...:{id}") over its arguments')
    if key.per == "call":
        return failed(
            "each call of the model is an effect of its own, so what is asked for twice is done twice",
            '@idempotent(key="...:{id}"), or a waiver with the reason why it may repeat',
        )
    told = key.key if isinstance(key.key, str) else "a callable over the arguments"
    return passed(f"{told}, unique in the {key.scope}")


def _input(subject: Subject, project: Project) -> Said:
    del project
    if subject.sheet is None:
        return unusable(subject)
    schema = subject.sheet.input_schema
    if schema is None:
        return failed("its arguments have no JSON Schema", "annotate them with types that have one")
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    loose = [name for name, shape in properties.items() if not _SHAPES & shape.keys()]
    typed = counted(len(properties), "argument")
    wrong = f"anything goes for {', '.join(loose)}"
    return holds(not loose, f"{typed}, each with a type", wrong, "annotate each with its type")


def _output(subject: Subject, project: Project) -> Said:
    del project
    contract = subject.contract
    if contract is not None and contract.input_schema is not None:
        given = contract.output_schema is not None
        return holds(given, "has a JSON Schema", "its result has no schema", _GIVE_SCHEMA)
    annotation = _returns(subject.function)
    loose = any(annotation is kind for kind in _LOOSE)
    told = getattr(annotation, "__name__", str(annotation))
    wrong = "does not say what it returns"
    return holds(not loose, f"returns {told}", wrong, "annotate its result: -> Refund")


def _returns(function: Any) -> Any:
    return _hints(function).get("return", inspect.Parameter.empty)


def _timeout(subject: Subject, project: Project) -> Said:
    del project
    contract = subject.contract
    if subject.key is not None and subject.key.same_database:
        return passed("runs inside the store's own transaction, where a timeout has no place")
    if contract is not None and contract.timeout is not None:
        return passed(f"{contract.timeout:g} s")
    more = "" if inspect.iscoroutinefunction(subject.function) else ', isolation="thread"'
    return failed("may take for ever", f"timeout=10{more} in @tool_contract")


def _rate(subject: Subject, project: Project) -> Said:
    del project
    contract, budget = subject.contract, subject.budget
    if contract is not None and contract.rate is not None:
        return passed(f"at most {contract.rate.text}")
    if budget is not None and budget.max_calls is not None:
        return passed(f"at most {counted(budget.max_calls, 'call')} per {budget.per}")
    mend = 'rate_limit="5/second" in @tool_contract, or @budget(max_calls=3)'
    return failed("may be called any number of times", mend)


def _retries(subject: Subject, project: Project) -> Said:
    del project
    tries = subject.contract.retry.attempts if subject.contract else 1
    told = "is not tried again" if tries == 1 else f"{tries} tries"
    mend = f"retry=Retry(attempts={MOST_TRIES}) at most"
    return holds(tries <= MOST_TRIES, told, f"is tried {tries} times", mend)


def _together(project: Project) -> Said:
    retries = project.settings.retries
    if retries is None:
        return failed(
            "any number of agents may retry without end together", "leave retry_budget: off out"
        )
    return passed(f"{retries.percent} % of the starts of a tenant, and {retries.burst} besides")


def _errors(subject: Subject, project: Project) -> Said:
    del project
    contract = subject.contract
    if contract is None or contract.fails_when is not None:
        return passed("says by its result whether it failed")
    telling = sorted(_TELL_FAILURE & _fields(subject))
    if telling:
        return failed(
            f"its result has {', '.join(telling)}, and nobody reads it: an error counts as done",
            f'fails_when=lambda result: result["{telling[0]}"] in @tool_contract',
        )
    in_transaction = subject.key is not None and subject.key.same_database
    silent = contract.classify.__module__.startswith("agentguard.contract")
    if silent and not contract.retry.on and not in_transaction:
        return failed(
            "no error tells whether anything happened, so each one is a doubt for people",
            'classify="http" or a callable, or retry=Retry(on=(...,)) in @tool_contract',
        )
    return passed("errors of HTTP and sockets are read" if not silent else "its errors are told")


def _fields(subject: Subject) -> set[str]:
    """Return the fields of its result, as far as its type names them."""
    contract = subject.contract
    if contract is not None and contract.output_schema is not None:
        return set(contract.output_schema.get("properties", {}))
    return set(_hints(_returns(subject.function)))


def _hints(thing: Any) -> dict[str, Any]:
    """Return the annotations of a function or a class, resolved as far as they can be."""
    try:
        return typing.get_type_hints(thing)
    except (NameError, TypeError, AttributeError):
        return dict(getattr(thing, "__annotations__", {}))


def _doubt(subject: Subject, project: Project) -> Said:
    del project
    key = subject.key
    if key is None:
        return failed("has no key by which its backend could be asked", "@idempotent(key=...)")
    if key.same_database:
        return passed("is committed with its record, so there is no doubt")
    if key.reconcile is not None:
        return passed(f"{getattr(key.reconcile, '__name__', 'a hook')} is asked what happened")
    if key.on_doubt == "retry_same_key":
        return passed("its backend drops repeats of a key, so it is tried again")
    return failed(
        "nobody is asked what happened when a reply is lost, so people rule on each doubt",
        'reconcile=... in @idempotent, or on_doubt="retry_same_key" with downstream_dedupe="24h"',
    )


def _undo(subject: Subject, project: Project) -> Said:
    del project
    if subject.undo is not None:
        return passed(f"undone by {subject.undo.name}")
    said = subject.contract is not None and subject.contract.irreversible
    wrong = "nobody says how it is undone, or that it cannot be"
    mend = "@compensated_by(undo), or irreversible=True in @tool_contract"
    return holds(said, "declared as irreversible", wrong, mend)


def _rare(sample: Sample, project: Project) -> Said:
    del project
    seen = sample.tally
    told = (
        f"{counted(seen.writes, 'write')}: {counted(seen.replayed, 'repeat')} answered from the record,"
        f" {counted(seen.again, 'further start')} after an end without effect,"
        f" {counted(seen.late, 'late answer')}"
    )
    if seen.late * MOST_LATE > max(seen.writes, RUNS_NEEDED):
        return failed(f"{told} that may be second writes", "agentguard runs show RUN --writes")
    return enough(seen.writes, passed(told), what="write")


def _explained(sample: Sample, project: Project) -> Said:
    del project
    seen = sample.tally
    if sample.doubts:
        names = ", ".join(sorted({effect.tool for effect in sample.doubts}))
        open_ones = counted(len(sample.doubts), "doubt")
        told = f"nobody has ruled on {open_ones}: {names}"
        return failed(told, "agentguard effects list --state in_doubt, then effects resolve")
    answered = max(0, seen.doubts - seen.by_hook - seen.by_people)
    ruled = (
        f"{seen.by_hook} ruled on by hooks, {seen.by_people} by people, {answered} answered late"
    )
    share = percent(seen.doubts, seen.writes)
    told = f"{counted(seen.doubts, 'doubt')} ({share} of writes), {ruled}, none open"
    return enough(seen.writes, passed(told), what="write")


CHECKS = (
    Check("safety.declared", "tool safety", "minimum", "Every tool is declared and can be used",
          "A tool nobody has declared runs without a guard. Its effect is declared, never"
          " guessed from a name.",
          _declared),
    Check("safety.key", "tool safety", "minimum", "Every write has an idempotency key",
          'Without a key that names the intent, a repeat is a second write. `per="call"`'
          " needs a waiver with its reason.",
          every_write(_key)),
    Check("safety.input", "tool safety", "minimum", "Every argument has a type",
          "What is not typed is not checked before the call: a model's slip reaches the"
          " backend.",
          every_tool(_input)),
    Check("safety.output", "tool safety", "minimum", "Every tool says what it returns",
          "A result without a schema is believed as it comes.",
          every_tool(_output)),
    Check("safety.timeout", "tool safety", "minimum", "Every write has a timeout",
          "A call that hangs holds its run and its key. Sync tools also name an isolation;"
          " tools in the store's own database need none.",
          every_write(_timeout)),
    Check("safety.rate", "tool safety", "minimum",
          "Every write is limited in how often it is called",
          "A rate limit, or a budget with `max_calls`: a loop is stopped before the backend"
          " stops it.",
          every_write(_rate)),
    Check("safety.retries", "tool safety", "minimum",
          f"No write is tried more than {MOST_TRIES} times",
          "Retries without a close end turn an outage into a storm.",
          every_write(_retries)),
    Check("safety.retry_budget", "tool safety", "minimum", "Agents share a retry budget",
          "What is bounded for each agent is not bounded for all of them together.",
          in_file("retry_budget", _together)),
    Check("safety.errors", "tool safety", "minimum", "Every write tells what its errors mean",
          "A tool that returns errors needs `fails_when`, or a failure counts as done; one"
          " that raises needs `classify`, or each error is a doubt.",
          every_write(_errors)),
    Check("safety.doubt", "tool safety", "minimum", "Every write says what to do in doubt",
          "A hook that asks the backend, or a backend that drops repeats. Leaving each doubt"
          " to people needs a waiver with its reason.",
          every_write(_doubt)),
    Check("safety.undo", "tool safety", "minimum",
          "Every write has an undo, or says that it has none",
          "Whoever cannot say how it is taken back should not let an agent do it alone.",
          every_write(_undo)),
    Check("safety.duplicates", "tool safety", "scale", "Duplicate writes are rare",
          f"Late answers that may be second writes are at most one in {MOST_LATE}; repeats and"
          f" further starts are told. Needs {RUNS_NEEDED} writes.",
          newest_runs(_rare)),
    Check("safety.doubts", "tool safety", "scale", "Every doubt is explained",
          "No effect is in doubt without a ruling of a hook or a person, however old. Needs"
          f" {RUNS_NEEDED} writes.",
          newest_runs(_explained)),
)  # fmt: skip
