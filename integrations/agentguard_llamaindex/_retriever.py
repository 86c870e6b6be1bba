"""A retriever whose every retrieval is a guarded read: counted, budgeted, and on record."""

# Retrievers and tools have no public names for their bodies.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import QueryBundle  # noqa: TC002 - read at run time, from the signature

from agentguard import ConfigurationError
from agentguard.hosting import guarded_retrieval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llama_index.core.schema import NodeWithScore

    from agentguard import Guard

RetrieverT = TypeVar("RetrieverT", bound=BaseRetriever)


def guard_retriever(
    retriever: RetrieverT, guard: Guard, *, name: str | None = None, **policy: Any
) -> RetrieverT:
    """Return *retriever* so that the record says what it found: ids, scores and hashes.

    Args:
        retriever: of any class; it stays as it is.
        guard: the guard of the calls.
        name: what the record and the configuration call it; by default its class's name.
        policy: what `Guard.protect` takes, such as `max_calls` or `scopes`.

    Raises:
        ConfigurationError: *retriever* is not one, or an option does not fit.
    """
    original: Any = retriever
    if not isinstance(original, BaseRetriever):
        raise ConfigurationError(
            f"guard_retriever takes a retriever, not {type(original).__name__}: give it"
            " index.as_retriever()"
        )

    def retrieve(query: str, query_bundle: QueryBundle) -> Any:
        """Retrieve what fits the query."""
        del query
        return retriever._retrieve(query_bundle)

    async def aretrieve(query: str, query_bundle: QueryBundle) -> Any:
        """Retrieve what fits the query."""
        del query
        return await retriever._aretrieve(query_bundle)

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        return guarded_retrieval(
            guard, function, name=name or type(retriever).__name__, documents=_documents, **policy
        )

    copied: Any = copy.copy(retriever)
    copied.__class__ = _guarded_class(type(retriever))
    copied._agentguard_retrieve, copied._agentguard_aretrieve = (
        guarded(retrieve),
        guarded(aretrieve),
    )
    return copied  # type: ignore[no-any-return]


@cache
def _guarded_class(kind: type[Any]) -> type[Any]:
    return type(kind.__name__, (_Guarded, kind), {"__module__": kind.__module__})


class _Guarded(BaseRetriever):
    """What a guarded retriever does differently. All ways to retrieve end in these."""

    _agentguard_retrieve: Callable[..., Any]
    _agentguard_aretrieve: Callable[..., Any]

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found: list[NodeWithScore] = self._agentguard_retrieve(query_bundle.query_str, query_bundle)
        return found

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found: list[NodeWithScore] = await self._agentguard_aretrieve(
            query_bundle.query_str, query_bundle
        )
        return found


def _documents(found: Sequence[NodeWithScore]) -> Iterator[dict[str, Any]]:
    for node in found:
        yield {"id": node.node_id, "score": node.score, "text": node.get_content()}
