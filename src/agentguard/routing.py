"""Which model does what: roles, the models behind their aliases, and when a heavier one takes over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ._names import same_model
from .errors import ConfigurationError
from .expressions import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROLES = ("planner", "executor", "verifier")
"""What a model does in a run."""
PROPOSERS = ("planner", "executor")
"""Who proposes calls; the verifier is somebody else."""


@dataclass(frozen=True, slots=True)
class Target:
    """The model behind an alias.

    Attributes:
        model: its name, such as `openai:gpt-5.1`, as `init_chat_model` and prices take it.
        service: the id of a Semantic Kernel service, where that is not the alias.
    """

    model: str
    service: str | None = None


@dataclass(frozen=True, slots=True)
class Escalation:
    """When a heavier model takes over.

    Attributes:
        after: so many failed verdicts in a run.
        to: the alias of the heavier model.
        roles: whose calls it takes over.
    """

    to: str
    after: int = 1
    roles: tuple[str, ...] = ("executor",)


@dataclass(frozen=True, slots=True)
class Route:
    """Where the calls of a role go now.

    Attributes:
        role: planner, executor or verifier.
        alias: what the configuration calls the model.
        model: the model behind it; the alias itself where nothing else is said.
        service: the id of a Semantic Kernel service; the alias where nothing else is said.
        escalated: the heavier model has taken over in this run.
    """

    role: str
    alias: str
    model: str
    service: str
    escalated: bool = False


class Routed(Protocol):
    """What these need of a configuration."""

    @property
    def routing(self) -> Mapping[str, str]:
        """Such as `executor_model`, each with its alias."""
        ...

    @property
    def models(self) -> Mapping[str, Target]:
        """The models behind aliases."""
        ...

    @property
    def escalation(self) -> Escalation | None:
        """When a heavier model takes over."""
        ...

    def place(self, key: str) -> str:
        """Return file and line of a key, as errors begin."""
        ...


def target_of(settings: Routed, alias: str) -> Target:
    """Return the model behind *alias*; without a word about it, it means itself."""
    return settings.models.get(alias) or Target(alias)


def route_of(settings: Routed, role: str, *, escalated: bool = False) -> Route:
    """Return where the calls of *role* go.

    Raises:
        ConfigurationError: there is no such role, nothing is said of it, or the verifier would be
            a model that proposes.
    """
    if role not in ROLES:
        raise ConfigurationError(f"there is no role {role!r}; it is {', '.join(ROLES)}")
    heavier = settings.escalation if escalated else None
    alias = settings.routing.get(f"{role}_model") if heavier is None else heavier.to
    if alias is None:
        raise ConfigurationError(
            f"no model is named for the role {role}: say routing: {{{role}_model: ...}} in"
            " agent_run.yaml"
        )
    target = target_of(settings, alias)
    if role == "verifier":
        _check_verifier(settings, target)
    return Route(role, alias, target.model, target.service or alias, heavier is not None)


def _check_verifier(settings: Routed, target: Target) -> None:
    for proposer in proposing(settings):
        if same_model(proposer, target.model):
            raise ConfigurationError(
                f"{settings.place('routing.verifier_model')}routing.verifier_model is"
                f" {target.model}, which proposes the calls: give it another model"
            )


def proposing(settings: Routed) -> list[str]:
    """Return the models that propose calls, also those that take over later."""
    roles = [settings.routing.get(f"{role}_model") for role in PROPOSERS]
    if settings.escalation is not None:
        roles.append(settings.escalation.to)
    named = [target_of(settings, alias).model for alias in roles if alias is not None]
    return list(dict.fromkeys(named))


def check(settings: Routed) -> None:
    """Refuse aliases that lead nowhere, and a heavier model that would verify itself.

    Raises:
        ConfigurationError: with the place and the mend.
    """
    for key, sentence in _problems(settings):
        raise ConfigurationError(f"{settings.place(key)}{key} {sentence}")


def _problems(settings: Routed) -> Iterator[tuple[str, str]]:
    known, models = [*settings.models, *settings.routing.values()], settings.models
    for name, alias in settings.routing.items():
        mend = suggestion(alias, models)
        if models and alias not in models and mend:
            yield f"routing.{name}", f"is {alias}, which models does not name{mend}"
    heavier = settings.escalation
    if heavier is None:
        return
    where = "routing.escalation.to"
    if heavier.to not in known:
        mend = suggestion(heavier.to, known) or "; name it under models"
        yield where, f"is {heavier.to}, which neither models nor a role names{mend}"
    verifier = settings.routing.get("verifier_model")
    if verifier is not None and _same(settings, verifier, heavier.to):
        yield where, "is the model that verifies: it would confirm what it proposes; name another"
    for role in heavier.roles:
        light = settings.routing.get(f"{role}_model")
        if light is None:
            yield "routing.escalation", f"is for the {role}, and no {role}_model is named; add it"
        elif _same(settings, light, heavier.to):
            yield where, f"is what the {role} has already; name a heavier model"


def _same(settings: Routed, one: str, other: str) -> bool:
    return same_model(target_of(settings, one).model, target_of(settings, other).model)
