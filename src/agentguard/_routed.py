"""What adapters need to route: the model that stands for a role where the caller is executing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError
from .routing import route_of
from .run import active_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .guard import Guard
    from .routing import Route


class RoutedModels:
    """The runtime's own models for one role, as the run says at every call.

    Args:
        role: `planner`, `executor` or `verifier`.
        guard: says which model it is outside of any run, where nothing escalates.
        models: ready models, by alias or by what the configuration calls the model.
        make: makes the others, from the model's name; each is made once.
    """

    def __init__(
        self, role: str, guard: Guard | None, models: Mapping[str, Any] | None = None,
        make: Callable[[str], Any] | None = None,
    ) -> None:  # fmt: skip
        self._role, self._guard, self._make = role, guard, make
        self._models = dict(models or {})

    @property
    def name(self) -> str:
        """The model's name; nothing where nobody can say it yet."""
        nobody = self._guard is None and active_run() is None
        return "" if nobody else self.route().model

    def route(self) -> Route:
        """Return where calls of the role go now.

        Raises:
            ConfigurationError: there is no run and no guard, or nothing is said of the role.
        """
        run = active_run()
        return self._outside() if run is None else run.role(self._role)

    async def aroute(self) -> Route:
        """Like `route`, on an event loop."""
        run = active_run()
        return self._outside() if run is None else await run.arole(self._role)

    def _outside(self) -> Route:
        if self._guard is None:
            raise ConfigurationError(
                f"there is no run here that says which model is the {self._role}: call it inside"
                " `with guard.run(...)`, or give the guard"
            )
        return route_of(self._guard.settings, self._role)

    def model(self) -> Any:
        """Return the model that is asked now.

        Raises:
            ConfigurationError: there is none for the route.
        """
        return self._ready(self.route())

    async def amodel(self) -> Any:
        """Like `model`, on an event loop."""
        return self._ready(await self.aroute())

    def service(self, services: Mapping[str, Any]) -> Any:
        """Return the one of a kernel's services, by their ids, that is asked now.

        Raises:
            ConfigurationError: it is not among them.
        """
        route = self.route()
        names = (route.model, route.model.partition(":")[2])
        same = [s for s in services.values() if getattr(s, "ai_model_id", None) in names]
        found = services.get(route.service) or next(iter(same), None)
        if found is not None:
            return found
        known = ", ".join(services) or "none"
        raise ConfigurationError(
            f"the kernel has no service {route.service!r} for the {route.role}, and none of the model"
            f" {route.model}; it has {known}: add it, or say service: under models in agent_run.yaml"
        )

    def _ready(self, route: Route) -> Any:
        found = self._models.get(route.alias, self._models.get(route.model))
        if found is not None:
            return found
        if self._make is None:
            raise self._unknown(route)
        try:
            made = self._models[route.model] = self._make(route.model)
        except (ImportError, ValueError) as error:
            first = str(error).strip().partition("\n")[0]
            raise self._unknown(route, f" ({first})") from error
        return made

    def _unknown(self, route: Route, why: str = "") -> ConfigurationError:
        alias = "" if route.alias == route.model else f" ({route.alias})"
        return ConfigurationError(
            f"there is no model {route.model}{alias} for the {self._role}{why}: name it in models=, or"
            " under models in agent_run.yaml"
        )
