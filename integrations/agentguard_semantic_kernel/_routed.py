"""A selector that gives each function the service that the run names for its role."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.services import AIServiceSelector

from agentguard.hosting import RoutedModels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard import Guard


class RoutedServiceSelector(AIServiceSelector):
    """Give it to a kernel: `Kernel(ai_service_selector=RoutedServiceSelector(guard))`.

    A function or a turn keeps the service that it began with; a heavier one takes over with the
    next. The service is found by its id: `service` of the model in `agent_run.yaml`, or else its
    alias, or else the one whose model it is.

    Args:
        guard: says which service it is outside of any run; None: only inside of runs.
        role: `planner`, `executor` or `verifier`.
        roles: other roles of functions, by their full name such as `shop-check`.
    """

    def __init__(
        self, guard: Guard | None, role: str = "executor", roles: Mapping[str, str] | None = None
    ) -> None:
        self._roles = {name: RoutedModels(its, guard) for name, its in (roles or {}).items()}
        self._others = RoutedModels(role, guard)

    def __deepcopy__(self, _: Any) -> RoutedServiceSelector:
        return self  # a clone of the kernel asks the same guard

    def select_ai_service(
        self, kernel: Any, function: Any = None, arguments: Any = None, type_: Any = None
    ) -> Any:
        """Return the service of the role, and the settings that were given for it."""
        name = getattr(function, "fully_qualified_name", "")
        services = kernel.get_services_by_type(type_)
        service = self._roles.get(name, self._others).service(services)
        own = getattr(function, "prompt_execution_settings", None) or {}
        given = {**own, **(getattr(arguments, "execution_settings", None) or {})}
        found = given.get(service.service_id) or next(iter(given.values()), None)
        kind = service.get_prompt_execution_settings_class()
        settings = kind.from_prompt_execution_settings(found or PromptExecutionSettings())
        settings.service_id = service.service_id
        if hasattr(
            settings, "ai_model_id"
        ):  # connectors write the first service's into what was given
            settings.ai_model_id = service.ai_model_id
        return service, settings
