"""The keys of `agent_run.yaml` that say which model does what."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ._key_types import Keys, Text, says
from .routing import Escalation, Target


def _some(roles: tuple[str, ...]) -> tuple[str, ...]:
    if not roles:
        msg = "must name planner, executor or both"
        raise ValueError(msg)
    return roles


class EscalationPolicy(Keys):
    """When a heavier model takes over in a run."""

    after: Annotated[int, Field(ge=1, le=100)] = says("Failed verdicts before it does.", 1)
    to: Text = Field(description="The heavier model, by its alias.")
    roles: Annotated[tuple[Literal["planner", "executor"], ...], AfterValidator(_some)] = says(
        "Whose calls it takes over.", ("executor",)
    )

    def escalation(self) -> Escalation:
        """Return it as the value that runs route by."""
        return Escalation(self.to, self.after, self.roles)


class Routing(Keys):
    """Which model does what; recorded with every run."""

    planner_model: Text | None = says("The model that plans.")
    executor_model: Text | None = says("The model that calls tools.")
    verifier_model: Text | None = says("The model that verifies.")
    escalation: EscalationPolicy | None = says("When a heavier model takes over.")

    def aliases(self) -> dict[str, str]:
        """Return the roles that are said, each with its alias."""
        return self.model_dump(exclude_none=True, exclude={"escalation"})


class ModelKeys(Keys):
    """The model behind an alias."""

    model: Text = Field(description="The model's name, such as openai:gpt-5.1.")
    service: Text | None = says("The id of a Semantic Kernel service, if that is not the alias.")


class _OrName:
    """In JSON Schema: the model's name, or keys."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(core)]}


def _named(value: object) -> object:
    if isinstance(value, str):
        return {"model": value}
    if not isinstance(value, dict):
        msg = "must be a model's name, such as openai:gpt-5.1, or hold keys beneath it"
        raise ValueError(msg)  # noqa: TRY004 - pydantic takes no other
    return value


Models = dict[Text, Annotated[ModelKeys, BeforeValidator(_named), _OrName()]]


def targets(models: Models) -> dict[str, Target]:
    """Return the models as values, by alias."""
    return {alias: Target(keys.model, keys.service) for alias, keys in models.items()}
