"""The retrieval room: what a retriever found is on record as ids, scores and hashes, never as texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .canonical import jsonable, sha256
from .declaration import check_function, declare, guarded_function
from .errors import ConfigurationError, ContractViolation
from .tool import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .config import Settings
    from .guard import Guard
    from .tool import Tool


def guarded_retrieval(
    guard: Guard, function: Callable[..., Any], *, name: str,
    documents: Callable[[Any], Iterable[Mapping[str, Any]]], **policy: Any,
) -> Callable[..., Any]:  # fmt: skip
    """Return *function* as a guarded read whose record says which documents it returned.

    Args:
        guard: the guard of the calls.
        function: takes `query`, and perhaps more, and returns what the runtime expects; sync or
            async, and so is what this returns.
        name: the retrieval's name; policy of this name in the configuration applies too.
        documents: reads a result without using it up: for each document, best first, its `id`,
            `score` and `text`; what is missing is None.
        policy: what `Guard.protect` takes, such as `max_calls` or `rate_limit`.

    Raises:
        ConfigurationError: an option that does not fit, with the sentence that mends it.
    """
    check_function(function)
    if name not in guard.settings.tools:  # the file always says what a tool does
        policy.setdefault("effect", "read")
    retrieval = declare(guarded_function(function), Retrieval(documents))
    return guard.protect(retrieval, name=name, **policy)


@dataclass(frozen=True)
class Retrieval:
    """What `guarded_retrieval` declares."""

    documents: Callable[[Any], Iterable[Mapping[str, Any]]]

    @property
    def stage(self) -> Stage:
        """Last: it looks at what everything else let through."""
        return Stage.RETRIEVAL

    def bind(self, tool: Tool, _settings: Settings) -> None:
        """Write on the sheet how a result is recorded.

        Raises:
            ConfigurationError: the tool writes, or has a key.
        """
        if tool.effect == "write":
            raise ConfigurationError(
                f'{tool.name} retrieves, so it only reads: leave effect="write" out'
            )
        if tool.key_of is not None:
            raise ConfigurationError(
                f"{tool.name} retrieves, and of a retrieval no result is kept that a key could give"
                " back: leave the idempotency key out"
            )
        tool.documents = lambda result: self._recorded(tool.name, result)

    def _recorded(self, tool: str, result: Any) -> list[dict[str, Any]]:
        """Return what the record says of *result*.

        Raises:
            ContractViolation: *documents* cannot read it; unrecorded it is given to nobody.
        """
        try:
            return [_recorded(document) for document in self.documents(result)]
        except Exception as error:
            raise ContractViolation(
                f"{tool} returned something that its `documents` cannot read"
                f" ({type(error).__name__}), so nothing of it can be recorded"
            ) from error


def _recorded(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return id, score and hash: plain SHA-256, so that whoever holds the document can compare."""
    text = document.get("text")
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    return {
        "id": _text(document.get("id")),
        "score": _text(document.get("score")),
        "sha256": None if data is None else sha256(data).hex(),
    }


def _text(value: Any) -> str | None:
    """Return a value as text: JSON numbers print differently in other languages."""
    return None if value is None else str(jsonable(str(value)))
