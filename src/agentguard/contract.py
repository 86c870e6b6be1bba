"""The contract room: what a tool is, what it takes and gives, and how it may fail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from . import _signature
from .canonical import dumps, sha256
from .classify import http_errors
from .declaration import check_function, declare
from .durations import seconds
from .errors import ConfigurationError
from .ledger.values import Breaker, Rate
from .model import Circuit, Retry
from .tool import DOUBT, Failure, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .config import Settings
    from .declaration import F
    from .tool import EffectKind, Tool

_PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


def tool_contract(
    *,
    effect: EffectKind,
    name: str | None = None,
    version: str = "1",
    scopes: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
    timeout: float | None = None,
    isolation: Literal["thread", "process"] | None = None,
    retry: Retry | None = None,
    rate_limit: str | None = None,
    sensitive: Sequence[str] = (),
    irreversible: bool = False,
    fails_when: Callable[[Any], Any] | None = None,
    strict: bool = False,
    evidence: Callable[..., Any] | None = None,
    preview: Callable[..., Any] | None = None,
    owner: str | None = None,
    polls: bool = False,
    circuit: Circuit | Mapping[str, Any] | None = None,
    classify: Literal["http", "doubt"] | Callable[[BaseException], Failure] = "http",
) -> Callable[[F], F]:
    """Declare what a tool is.

    Args:
        effect: `read` changes nothing, `write` does, `forbidden` may never be called. No default:
            it is declared, never guessed from a name.
        name: the tool's name; the function's by default.
        version: of the contract; another major version makes other idempotency keys.
        scopes: what the principal must hold.
        facts: fact name to argument name, for thresholds in YAML such as `refund_usd_over`.
        timeout: seconds; a sync tool must name an *isolation*, since Python cannot stop a call.
        isolation: where a sync body runs: a `thread` (abandoned at the deadline) or a `process`
            (killed at it).
        retry: how often to try again after failures that had no effect.
        rate_limit: such as `5/second`; per tenant, over all processes.
        sensitive: arguments that are never stored in clear.
        irreversible: nothing can undo it.
        fails_when: for tools that return errors: True, or a `NoEffect`, says that nothing
            happened; `Unknown()` that nobody knows.
        strict: refuse arguments and results that would have to be coerced.
        polls: calls that repeat each other are no loop: the tool looks whether something has
            happened yet, or waits.
        circuit: when a tool that fails is left alone, by everybody in its tenant.
        evidence: `reader(arguments)`, asked right before and after the body; what it returns is
            given to verifiers as `Evidence(before, after)` and kept. It must only read. Where it
            fails before, the body does not begin; sync for a sync tool.
        preview: `preview(arguments, before)` with what *evidence* saw: what it would see after the
            call. Proposals show people the difference. It must only read.
        owner: the team that answers for the tool's code; no verifier may be theirs.
        classify: what an exception says about the effect. `http` reads HTTP and socket errors, on
            the premise that the tool makes one request that writes; `doubt` reads nothing.

    Raises:
        ConfigurationError: the declaration contradicts itself.
    """
    return _declaring(_contract(**locals()))


def _contract(
    *, timeout: float | None = None, retry: Retry | None = None, rate_limit: str | None = None,
    scopes: Sequence[str] = (), facts: Mapping[str, str] | None = None,
    sensitive: Sequence[str] = (), classify: Any = "http", circuit: Any = None, **rest: Any,
) -> Contract:  # fmt: skip
    return Contract(
        timeout=timeout,
        retry=retry or Retry(attempts=1),
        rate=parse_rate(rate_limit),
        scopes=tuple(scopes),
        facts=dict(facts or {}),
        sensitive=frozenset([sensitive] if isinstance(sensitive, str) else sensitive),
        classify=_classifier(classify),
        circuit=Circuit(**circuit) if isinstance(circuit, Mapping) else circuit,
        **rest,
    )


def schema_contract(
    input_schema: Mapping[str, Any] | None, output_schema: Mapping[str, Any] | None, **options: Any
) -> Callable[[F], F]:
    """Like `tool_contract`, for a tool whose arguments are described by JSON Schema."""
    return _declaring(_contract(**options, input_schema=input_schema, output_schema=output_schema))


def _declaring(policy: Contract) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        check_function(function)
        policy.check(function)
        return declare(function, policy)

    return decorate


@dataclass(frozen=True)
class Contract:
    """What `tool_contract` declares."""

    effect: EffectKind
    name: str | None = None
    version: str = "1"
    scopes: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    isolation: Literal["thread", "process"] | None = None
    retry: Retry = field(default_factory=lambda: Retry(attempts=1))
    rate: Rate | None = None
    sensitive: frozenset[str] = frozenset()
    irreversible: bool = False
    fails_when: Callable[[Any], Any] | None = None
    strict: bool = False
    evidence: Callable[..., Any] | None = None
    preview: Callable[..., Any] | None = None
    owner: str | None = None
    polls: bool = False
    circuit: Circuit | None = None
    classify: Callable[[BaseException], Failure] = http_errors
    input_schema: Mapping[str, Any] | None = None
    output_schema: Mapping[str, Any] | None = None

    @property
    def stage(self) -> Stage:
        """The contract stands first: everything else is about the arguments it lets in."""
        return Stage.CONTRACT

    def check(self, function: Any) -> None:
        """Refuse a declaration that contradicts itself or its function.

        Raises:
            ConfigurationError: with the sentence that says what to change.
        """
        name = self.name or str(getattr(function, "__name__", "tool"))
        if self.effect not in ("read", "write", "forbidden"):
            raise ConfigurationError(f'{name}: effect is "read", "write" or "forbidden"')
        _check_timeout(self, name, is_async=_signature.is_async(function))
        read: Any = self.evidence
        waits = read is not None and _signature.is_async(read) > _signature.is_async(function)
        if read is not None and (waits or not callable(read)):
            raise ConfigurationError(
                f"{name}: evidence is a callable(arguments), and a sync one for a sync tool"
            )
        if self.preview is not None and self.evidence is None:
            raise ConfigurationError(
                f"{name}: preview is told what evidence has seen: add evidence=reader to the contract"
            )
        if self.isolation == "process":
            from ._isolated import register

            register(function, self, name)
        schema = self.input_schema
        known = (
            _signature.names_of(function) if schema is None else list(schema.get("properties", {}))
        )
        for what, names in (("sensitive", self.sensitive), ("facts", self.facts.values())):
            for argument in names:
                if known is not None and argument not in known:
                    raise ConfigurationError(
                        f"{name}: {what} names {argument!r}, which is none of its arguments"
                        f" ({', '.join(known) or 'it has none'})"
                    )

    def bind(self, tool: Tool, settings: Settings) -> None:
        """Write the contract's clause on the sheet."""
        tool.name = self.name or tool.name
        tool.effect, tool.scopes, tool.facts = self.effect, self.scopes, self.facts
        tool.timeout, tool.isolation, tool.retry = self.timeout, self.isolation, self.retry
        tool.rate, tool.sensitive, tool.irreversible = self.rate, self.sensitive, self.irreversible
        tool.fails_when, tool.classify, tool.polls = self.fails_when, self.classify, self.polls
        tool.evidence, tool.preview, tool.owner = self.evidence, self.preview, self.owner
        tool.circuit = _breaker(settings.circuits.get(tool.name, self.circuit), tool.name)
        if self.input_schema is None:
            signature = _signature.Signature(
                tool.function, tool.name, self.sensitive, strict=self.strict
            )
            tool.arguments, tool.parameters = signature, signature.names
            tool.input_schema = signature.schema()
            tool.results = _signature.Returned(tool.function, tool.name, strict=self.strict)
        else:
            from . import _jsonschema

            tool.arguments = _jsonschema.SchemaArguments(
                self.input_schema, tool.name, self.sensitive
            )
            tool.parameters = tuple(self.input_schema.get("properties", {}))
            tool.input_schema = self.input_schema
            tool.results = _jsonschema.SchemaResults(self.output_schema, tool.name)
        tool.version = f"{self.version}:{_fingerprint(tool)}"


def _breaker(circuit: Circuit | None, tool: str) -> Breaker | None:
    if circuit is None:
        return None
    window, cooldown = seconds(circuit.window, "window"), seconds(circuit.cooldown, "cooldown")
    return Breaker(tool, circuit.failures, int(window * 1_000_000), int(cooldown * 1_000_000))


def _fingerprint(tool: Tool) -> str:
    """Eight characters that change when the shape of the arguments does: contracts drift."""
    return sha256(dumps([tool.parameters, tool.input_schema]).encode()).hex()[:8]


def _check_timeout(policy: Contract, name: str, *, is_async: bool) -> None:
    if policy.isolation not in (None, "thread", "process"):
        raise ConfigurationError(f'{name}: isolation is "thread" or "process"')
    if is_async and policy.isolation is not None:
        raise ConfigurationError(
            f"{name}: isolation is for sync functions; an async one is cancelled at its timeout"
        )
    if policy.timeout is None:
        return
    if policy.timeout <= 0:
        raise ConfigurationError(f"{name}: timeout is in seconds and above zero")
    if not is_async and policy.isolation is None:
        raise ConfigurationError(
            f"{name}: a timeout cannot stop a sync function; name isolation="
            '"thread" (it is abandoned) or "process" (it is killed), or make it async'
        )


def _classifier(classify: Any) -> Callable[[BaseException], Failure]:
    if callable(classify):
        return cast("Callable[[BaseException], Failure]", classify)
    if classify not in ("http", "doubt"):
        raise ConfigurationError('classify is "http", "doubt" or a callable')
    return http_errors if classify == "http" else lambda _error: DOUBT


def parse_rate(text: str | None) -> Rate | None:
    """Return a rate written as `5/second`, `100/minute`, `10/hour` or `1/day`.

    Raises:
        ConfigurationError: it is written otherwise.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,6})/(second|minute|hour|day)", text)
    if match is None:
        raise ConfigurationError(
            f"rate_limit={text!r}: write a number and a period, such as 5/second or 100/minute"
        )
    count, seconds = int(match[1]), _PERIODS[match[2]]
    return Rate(max(1, seconds * 1_000_000 // count), count, f"{count} times a {match[2]}")
