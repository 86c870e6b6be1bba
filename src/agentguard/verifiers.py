"""Verifiers that are ready to use: rules that are certain, and models with a rubric."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ._judging import model_verifier
from ._verdicts import check_of, is_async, sync_verdict
from .canonical import jsonable
from .errors import ConfigurationError
from .model import Evidence, Verdict, VerifierIdentity

__all__ = [
    "Evidence",
    "VerifierIdentity",
    "banned_terms",
    "command",
    "json_schema",
    "ledger_reconciliation",
    "model_verifier",
    "required_terms",
    "rule_set",
    "within",
]

_LONGEST_OUTPUT = 2000
_MOST_DIFFERENCES = 20
_ABSENT = object()
_AMOUNT = re.compile(r"-?\d+\.\d+")


@dataclass(frozen=True)
class Rule:
    """A verifier that is certain: code without a model in it.

    Attributes:
        identity: who it is, as the record shows it.
        judge: `judge(arguments, result)` → verdict, or an awaitable of one.
        blocks: it takes its time, so that no event loop should wait for it.
    """

    identity: VerifierIdentity
    judge: Callable[[Mapping[str, Any], Any], Any] = field(repr=False)
    blocks: bool = False

    def __call__(self, arguments: Mapping[str, Any], result: Any) -> Any:
        return self.judge(arguments, result)


class AsyncRule(Rule):
    """The same, for rules that have to wait."""

    async def __call__(self, arguments: Mapping[str, Any], result: Any) -> Any:
        return await self.judge(arguments, result)


class RuleSet(Rule):
    """Several rules as one."""

    is_set = True


def _rule(name: str, owner: str | None, judge: Callable[..., Verdict], **more: Any) -> Rule:
    return Rule(VerifierIdentity("rule", name, owner=owner), judge, **more)


# Fields.


def _checked(path: str) -> str:
    head = path.partition(".")[0]
    if head not in ("arguments", "result"):
        raise ConfigurationError(
            f"field={path!r} begins with arguments or result, such as result.total or"
            " arguments.amount_usd"
        )
    return path


def _at(path: str, arguments: Mapping[str, Any], result: Any) -> Any:
    """Return what stands at a dotted path, or `_ABSENT`."""
    head, *rest = path.split(".")
    found: Any = arguments if head == "arguments" else result
    for name in rest:
        if isinstance(found, Mapping):
            found = found.get(name, _ABSENT)
        elif isinstance(found, Sequence) and not isinstance(found, str) and name.isdecimal():
            found = found[int(name)] if int(name) < len(found) else _ABSENT
        else:
            found = _ABSENT if name.startswith("_") else getattr(found, name, _ABSENT)
        if found is _ABSENT:
            break
    return found


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        number = Decimal(str(value).strip())
    except ArithmeticError:
        return None
    return number if number.is_finite() else None


# Rules.


def json_schema(
    schema: Mapping[str, Any], *, field: str = "result", owner: str | None = None
) -> Rule:
    """Return a verifier that holds a field against JSON Schema; needs the extra `jsonschema`.

    Args:
        schema: the schema.
        field: `result`, `arguments`, or a dotted path below one of them.
        owner: the team that answers for it.

    Raises:
        ConfigurationError: the schema is none, or the path is.
    """
    from ._jsonschema import problems_of

    path, problems = _checked(field), problems_of(schema, "json_schema")

    def judge(arguments: Mapping[str, Any], result: Any) -> Verdict:
        value = _at(path, arguments, result)
        if value is _ABSENT:
            return Verdict(passed=False, reason=f"{path} is missing")
        found = problems(value)
        reason = f"{path} does not fit: {'; '.join(found)}" if found else ""
        return Verdict(not found, reason=reason, diff={path: found} if found else None)

    return _rule("json_schema", owner, judge)


def within(
    field: str, minimum: Any = None, maximum: Any = None, *, owner: str | None = None
) -> Rule:
    """Return a verifier of a number: exact, without floats, bounds included.

    Args:
        field: a dotted path below `arguments` or `result`.
        minimum: the least it may be.
        maximum: the most it may be.
        owner: the team that answers for it.

    Raises:
        ConfigurationError: there is no bound, or one that is no number.
    """
    path, low, high = _checked(field), _bound(minimum, "minimum"), _bound(maximum, "maximum")
    if low is None and high is None:
        raise ConfigurationError("within: give minimum, maximum or both")
    if low is not None and high is not None and low > high:
        raise ConfigurationError(f"within: nothing is from {low} to {high}")

    def judge(arguments: Mapping[str, Any], result: Any) -> Verdict:
        number = _number(_at(path, arguments, result))
        if number is None:
            return Verdict(passed=False, reason=f"{path} is missing, or no finite number")
        if low is not None and number < low:
            return _outside(path, number, f"at least {low}")
        if high is not None and number > high:
            return _outside(path, number, f"at most {high}")
        return Verdict(passed=True)

    return _rule("within", owner, judge)


def _bound(value: Any, name: str) -> Decimal | None:
    number = None if value is None else _number(value)
    if value is not None and number is None:
        raise ConfigurationError(f"within: {name}={value!r} is no finite number")
    return number


def _outside(path: str, number: Decimal, bound: str) -> Verdict:
    reason = f"{path} is {number}, {bound} is allowed"
    return Verdict(passed=False, reason=reason, diff={path: [str(number), bound]})


def required_terms(
    terms: Sequence[str], *, field: str = "result", owner: str | None = None
) -> Rule:
    """Return a verifier that finds every one of *terms* in a text; case and spacing do not count.

    Raises:
        ConfigurationError: there are no terms, or the path is none.
    """
    return _terms("required_terms", terms, field, owner, lambda text, term: term in text, "lacks")


def banned_terms(terms: Sequence[str], *, field: str = "result", owner: str | None = None) -> Rule:
    """Return a verifier that finds none of *terms* in a text, however it is written.

    Raises:
        ConfigurationError: there are no terms, or the path is none.
    """
    return _terms("banned_terms", terms, field, owner, lambda text, term: term not in text, "says")


def _terms(
    name: str, terms: Sequence[str], field: str, owner: str | None,
    is_right: Callable[[_Text, str], bool], wrong: str,
) -> Rule:  # fmt: skip
    path = _checked(field)
    if isinstance(terms, str) or not terms or not all(map(_folded, terms)):
        raise ConfigurationError(f"{name}: give a list of terms, none of them empty")

    def judge(arguments: Mapping[str, Any], result: Any) -> Verdict:
        value = _at(path, arguments, result)
        if value is _ABSENT or value is None:
            return Verdict(passed=False, reason=f"{path} is missing")
        text = _Text("\n".join(_leaves(value)))
        found = [term for term in terms if not is_right(text, term)]
        reason = f"{path} {wrong} {', '.join(map(repr, found))}" if found else ""
        return Verdict(not found, reason=reason, diff={path: found} if found else None)

    return _rule(name, owner, judge)


class _Text:
    """A text in which whole words are found, however they are written."""

    def __init__(self, text: str) -> None:
        self._text = _folded(text)

    def __contains__(self, term: object) -> bool:
        return re.search(rf"(?<!\w){re.escape(_folded(str(term)))}(?!\w)", self._text) is not None


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold()
    seen = "".join(c for c in plain if unicodedata.category(c) != "Cf")
    return " ".join(seen.split())


def _leaves(value: Any) -> list[str]:
    """Return the texts in a value, keys left out."""
    if isinstance(value, str):
        return [value]
    plain = jsonable(value, "text")
    parts = list(plain.values()) if isinstance(plain, dict) else plain
    if not isinstance(parts, list):
        return [str(plain)]
    return [text for part in parts for text in _leaves(part)]


def rule_set(name: str, *rules: Callable[..., Any], owner: str | None = None) -> Rule:
    """Return several rules as one verifier, which tells of every one that says no.

    It is asked after rules that stand alone.

    Raises:
        ConfigurationError: there are no rules, or one of them is async or asks a model.
    """
    checks = [check_of(rule) for rule in rules]
    if not checks or any(c.is_async or c.identity.kind != "rule" for c in checks):
        raise ConfigurationError(f"rule_set {name!r}: give sync rules, and no model among them")

    def judge(arguments: Mapping[str, Any], result: Any) -> Verdict:
        verdicts = {c.name: sync_verdict(c, arguments, result) for c in checks}
        said_no = {who: verdict for who, verdict in verdicts.items() if not verdict.passed}
        return Verdict(
            passed=not said_no,
            reason="; ".join(f"{who}: {v.reason or 'no'}" for who, v in said_no.items()),
            diff={who: dict(v.diff or {}) for who, v in said_no.items()} or None,
            unavailable=any(verdict.unavailable for verdict in said_no.values()),
        )

    return RuleSet(VerifierIdentity("rule", name, owner=owner), judge)


# Ledgers.


def ledger_reconciliation(
    reader_a: Callable[[Mapping[str, Any]], Any], reader_b: Callable[[Mapping[str, Any]], Any], *,
    expect: Callable[[Mapping[str, Any], Any], Any] | None = None, owner: str | None = None,
) -> Rule:  # fmt: skip
    """Return a verifier that asks two ledgers, which must agree.

    Args:
        reader_a: called with the arguments, returns what one ledger says: numbers, texts, lists or
            mappings. It must only read.
        reader_b: the same of another ledger. One async reader makes the verifier async.
        expect: called with arguments and result, returns what both must say.
        owner: the team that answers for it.

    Raises:
        ConfigurationError: a reader cannot be called.
    """
    readers = {_name_of(reader_a, "a"): reader_a}
    second = _name_of(reader_b, "b")
    readers[second if second not in readers else f"{second} (b)"] = reader_b
    if not all(map(callable, readers.values())) or not (expect is None or callable(expect)):
        raise ConfigurationError("ledger_reconciliation: readers and expect are callables")
    identity = VerifierIdentity("rule", "ledger_reconciliation", owner=owner)

    def judge(arguments: Mapping[str, Any], result: Any) -> Verdict:
        said = {name: _read(read, arguments) for name, read in readers.items()}
        return _reconciled(said, expect, arguments, result)

    async def judge_waiting(arguments: Mapping[str, Any], result: Any) -> Verdict:
        said = {name: await _aread(read, arguments) for name, read in readers.items()}
        return _reconciled(said, expect, arguments, result)

    if any(map(is_async, readers.values())):
        return AsyncRule(identity, judge_waiting)
    return Rule(identity, judge)


def _name_of(reader: Any, name: str) -> str:
    return str(getattr(reader, "__name__", f"reader_{name}"))


@dataclass(frozen=True, slots=True)
class _Broken:
    error: str


def _read(read: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return _even(jsonable(read(arguments), "ledger"))
    except Exception as error:  # noqa: BLE001 - a ledger that cannot be read confirms nothing
        return _Broken(f"{type(error).__name__}: {error}")


async def _aread(read: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        said = read(arguments)
        return _even(jsonable(await said if hasattr(said, "__await__") else said, "ledger"))
    except Exception as error:  # noqa: BLE001 - as above
        return _Broken(f"{type(error).__name__}: {error}")


def _reconciled(
    said: dict[str, Any], expect: Callable[..., Any] | None, arguments: Mapping[str, Any],
    result: Any,
) -> Verdict:  # fmt: skip
    broken = {name: value.error for name, value in said.items() if isinstance(value, _Broken)}
    if broken:
        told = "; ".join(f"{name} failed with {error}" for name, error in broken.items())
        reason = f"verifier unavailable: {told}"
        return Verdict(passed=False, reason=reason, diff=broken, unavailable=True)
    if expect is not None:
        said["expected"] = _even(jsonable(expect(arguments, result), "expected"))
    diff = _differences(said)
    if not diff:
        return Verdict(passed=True)
    first, values = next(iter(diff.items()))
    shown = ", ".join(f"{name} says {value}" for name, value in values.items())
    where = f"{first}: " if first else ""
    named = {path or "value": values for path, values in diff.items()}
    return Verdict(passed=False, reason=f"{where}{shown}", diff=named)


def _even(value: Any) -> Any:
    """Return JSON whose numbers compare by value, whether they came as text or not."""
    if isinstance(value, dict):
        return {name: _even(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_even(part) for part in value]
    if isinstance(value, str) and not _AMOUNT.fullmatch(value):
        return value  # names such as 007 are no numbers
    number = _number(value)
    return value if number is None else format(number.normalize(), "f")


def _differences(said: Mapping[str, Any], path: str = "") -> dict[str, dict[str, Any]]:
    """Return what is not the same everywhere: path → what each one says there."""
    values = list(said.values())
    if all(value == values[0] for value in values):
        return {}
    if all(isinstance(value, dict) for value in values):
        names = sorted({name for value in values for name in value})
        found: dict[str, dict[str, Any]] = {}
        for name in names[:_MOST_DIFFERENCES]:
            below = {who: value.get(name) for who, value in said.items()}
            found |= _differences(below, f"{path}.{name}".lstrip("."))
        return found
    return {path: dict(said)}


# Commands.


def command(
    argv: Sequence[str] | Callable[[Mapping[str, Any], Any], Sequence[str]], *,
    timeout: float = 60.0, cwd: str | os.PathLike[str] | None = None,
    name: str | None = None, owner: str | None = None,
) -> Rule:  # fmt: skip
    """Return a verifier that runs a program, such as tests or a linter; exit code 0 is a yes.

    Args:
        argv: the program and its arguments, or what makes them from arguments and result. There
            is no shell.
        timeout: seconds, after which it and its children are killed.
        cwd: where it runs.
        name: as the record shows it; the program's by default.
        owner: the team that answers for it.

    Raises:
        ConfigurationError: *argv* is a text, or empty.
    """
    if not callable(argv):
        _check_argv(argv)
    if timeout <= 0:
        raise ConfigurationError("command: timeout is in seconds and above zero")

    def judge(arguments: Mapping[str, Any], result: Any) -> Verdict:
        line = list(argv(arguments, result) if callable(argv) else argv)
        _check_argv(line)
        return _ran(line, timeout, cwd)

    program = "command" if callable(argv) else os.path.basename(argv[0])  # noqa: PTH119 - a name
    return _rule(name or program, owner, judge, blocks=True)


def _check_argv(argv: Any) -> None:
    if isinstance(argv, str) or not argv or not all(isinstance(part, str) for part in argv):
        raise ConfigurationError(
            f"command: {argv!r} must be a list of texts, such as ['pytest', '-q']; there is no shell"
        )


def _ran(argv: list[str], timeout: float, cwd: Any) -> Verdict:
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - without a shell, as declared
        argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, cwd=cwd,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            reason = f"verifier unavailable: {argv[0]} did not end within {timeout} s"
            return Verdict(passed=False, reason=reason, unavailable=True)
        except BaseException:
            _end(process)
            raise
    code = process.returncode
    if code == 0:
        return Verdict(passed=True)
    tail = output.decode(errors="replace")[-_LONGEST_OUTPUT:]
    ended = f"exit code {code}" if code > 0 else f"signal {-code}"
    return Verdict(
        passed=False, reason=f"{argv[0]}: {ended}", diff={"exit_code": code, "output": tail}
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the program with all that it has started, and wait for it."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
