"""The approval room: which calls a person has to decide on, and who may."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ._signature import names_of
from .declaration import check_function, declare
from .durations import seconds
from .errors import ConfigurationError
from .expressions import Expression, compile_expression
from .ledger.values import Ask
from .tool import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .config import Settings
    from .declaration import F
    from .tool import Call, Tool

_LONGEST = 7 * 86_400.0
_MOST_PEOPLE = 10


def requires_approval(
    *,
    when: str | Callable[..., Any] | None = None,
    roles: Sequence[str] = (),
    quorum: int = 1,
    expires: str = "24h",
    allow_edit: bool = False,
) -> Callable[[F], F]:
    """Let a person decide before the call may start.

    Args:
        when: an expression over the arguments, such as `amount_usd > 50`, or a callable over
            them; omitted means always. Anything but a plain False asks.
        roles: who may decide; one of them suffices. Empty: any person but those involved.
        quorum: how many different people have to approve; one rejection is final.
        expires: how long they may take, such as `30m` or `24h`; at most 7 days.
        allow_edit: whether an approver may change arguments; somebody else then approves them.

    Raises:
        ConfigurationError: the declaration contradicts itself, or *when* names no argument.
    """
    policy = ApprovalPolicy(
        when=when,
        roles=tuple([roles] if isinstance(roles, str) else roles),
        quorum=quorum,
        expires=seconds(expires, "expires"),
        allow_edit=allow_edit,
    )
    policy.check()

    def decorate(function: F) -> F:
        check_function(function)
        policy.check_names(function)
        return declare(function, policy)

    return decorate


@dataclass(frozen=True)
class ApprovalPolicy:
    """What `requires_approval` declares."""

    when: str | Callable[..., Any] | None = None
    roles: tuple[str, ...] = ()
    quorum: int = 1
    expires: float = 86_400.0
    allow_edit: bool = False

    @property
    def stage(self) -> Stage:
        """After the key: a replay asks nobody."""
        return Stage.APPROVAL

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ConfigurationError: with the sentence that says what to change.
        """
        if type(self.quorum) is not int or not 1 <= self.quorum <= _MOST_PEOPLE:
            raise ConfigurationError(
                f"requires_approval: quorum is a number of people from 1 to {_MOST_PEOPLE}"
            )
        if self.expires > _LONGEST:
            raise ConfigurationError("requires_approval: expires is at most 7d")
        if not (self.when is None or isinstance(self.when, str) or callable(self.when)):
            raise ConfigurationError("requires_approval: when is an expression or a callable")

    def check_names(self, function: Any) -> None:
        """Refuse an expression over arguments that the function does not have."""
        names = names_of(function)
        if isinstance(self.when, str) and names is not None:
            compile_expression(self.when, names)

    def bind(self, tool: Tool, _settings: Settings) -> None:
        """Write the rule on the sheet."""
        text = "always" if self.when is None else _text(self.when)
        asks = self._asking(tool)
        ask = tool.who = self.ask(text)
        tool.rules.append(lambda call: ask if asks(call.arguments) else None)

    def _asking(self, tool: Tool) -> Callable[[Any], bool]:
        when = self.when
        if when is None:
            return lambda _arguments: True
        if isinstance(when, str):
            expression: Expression = compile_expression(when, tool.parameters)
            return expression.asks
        return lambda arguments: _asks(when, arguments)

    def ask(self, rule: str) -> Ask:
        """Return the decision to ask people because of *rule*."""
        return Ask(rule, self.roles, self.quorum, self.expires, self.allow_edit)


def _text(when: Any) -> str:
    return when if isinstance(when, str) else getattr(when, "__qualname__", "a callable")


def _asks(when: Callable[..., Any], arguments: Any) -> bool:
    """Only a plain False keeps people out of it."""
    try:
        return when(**arguments) is not False
    except Exception:  # noqa: BLE001 - a rule that breaks asks
        return True


def add_thresholds(tool: Tool, settings: Settings, policy: ApprovalPolicy | None) -> None:
    """Write the thresholds of the configuration on the sheet, for the facts the tool declares.

    Who may decide is what the tool's own `requires_approval` says, if it has one.
    """
    who = policy or ApprovalPolicy()
    for fact, argument in tool.facts.items():
        limit = settings.thresholds.get(fact)
        if limit is not None:
            tool.rules.append(_threshold(who.ask(f"{fact} over {limit}"), argument, limit))


def _threshold(ask: Ask, argument: str, limit: Decimal) -> Callable[[Call], Ask | None]:
    def rule(call: Call) -> Ask | None:
        value = call.arguments.get(argument)
        return None if _is_within(value, limit) else ask

    return rule


def _is_within(value: Any, limit: Decimal) -> bool:
    """What is no finite number is not within any threshold."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return False
    try:
        return Decimal(str(value)) <= limit
    except ArithmeticError:
        return False
