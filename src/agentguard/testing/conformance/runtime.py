"""The port of the conformance suite: an agent runtime with its adapter, as the tests drive it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .scene import Outcome, Scene, Shown


class Runtime(ABC):
    """One way to run agents: a column of the table.

    An adapter subclasses it, implements `shown` and `play` or `aplay`, and gives the class to a
    subclass of `AdapterContract`. Scripted is only the model; everything else is the real runtime.
    An instance is made for every scene.

    Attributes:
        name: the column's title.
        colours: `sync`, `async` or both; what the runtime has.
        cannot: names of behaviours (test methods) that this runtime cannot have, and why.
    """

    name: ClassVar[str]
    colours: ClassVar[tuple[str, ...]] = ("sync", "async")
    cannot: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def shown(self, tools: Sequence[Callable[..., Any]]) -> list[Shown]:
        """Return what the runtime would show the model of *tools*, decorated or not."""

    def play(self, scene: Scene) -> Outcome:
        """Play *scene* in the runtime's synchronous form, from wherever its folder says it stands.

        The runtime's own exceptions around a `GuardError` are taken off; nothing is raised.
        """
        raise NotImplementedError

    async def aplay(self, scene: Scene) -> Outcome:
        """Play *scene* on an event loop. A cancellation passes through."""
        raise NotImplementedError
