"""Retrievers: the same retriever, whose searches are guarded reads that say what they found.

A proxy around a retriever is bypassed by `|` and `batch`, which take the retriever inside. So the
guarded one is an instance of a subclass of the retriever's own class, with guarded methods.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.retrievers import BaseRetriever

from agentguard import ConfigurationError
from agentguard.hosting import annotated_as, guarded_retrieval, register_injected, setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from langchain_core.documents import Document

    from agentguard import Guard

RetrieverT = TypeVar("RetrieverT", bound=BaseRetriever)
_SCORES = ("relevance_score", "score")  # where rerankers and stores leave them; there is no field


def guard_retriever(
    retriever: RetrieverT, guard: Guard, *, name: str | None = None, **policy: Any
) -> RetrieverT:
    """Return a copy of *retriever* whose searches are guarded and on record.

    The record has, for each document, its id (or else the `source` of its metadata), its score if
    its metadata tells one, and the SHA-256 of its text. No text is kept.

    Args:
        retriever: a LangChain retriever, of any class.
        guard: the guard of the searches.
        name: the retrieval's name; the retriever's own by default. What the guard's configuration
            says about a tool of that name applies as well.
        policy: what `Guard.protect` takes, such as `max_calls` or `rate_limit`.

    Raises:
        ConfigurationError: *retriever* is none, or guarded already.
    """
    given: Any = retriever
    if not isinstance(given, BaseRetriever):
        raise ConfigurationError(
            f"guard_retriever takes a retriever, not {type(given).__name__}: guard it before"
            " `with_config`, `bind` and the like"
        )
    kind = type(given)
    if hasattr(kind, "__agentguard_retriever__"):
        raise ConfigurationError("this retriever is guarded already: call guard_retriever once")

    def protect(search: Callable[..., Any]) -> Callable[..., Any]:
        known = name or given.get_name()
        return guarded_retrieval(guard, search, name=known, documents=_documents, **policy)

    methods = {n: _method(getattr(kind, n), *map(protect, s)) for n, s in _SEARCHES.items()}
    told = {"__module__": kind.__module__, "__agentguard_retriever__": True, **methods}
    copied = retriever.model_copy()
    # pydantic keeps ordinary assignment for fields.
    object.__setattr__(copied, "__class__", type(kind.__name__, (kind,), told))
    return copied


# A retriever may search through its own method of the other colour; that is still one search.
_SEARCHING: ContextVar[Any] = ContextVar("agentguard_langchain_searching", default=None)


@dataclass(frozen=True)
class _Own:
    """A retriever's own search, which is no argument of the retrieval."""

    retriever: Any
    search: Callable[..., Any]


register_injected(annotated_as(_Own))


def _search(query: str, own: _Own) -> Any:
    with setting(_SEARCHING, own.retriever):
        return own.search(query)


async def _asearch(query: str, own: _Own) -> Any:
    with setting(_SEARCHING, own.retriever):
        return await own.search(query)


def _search_with(query: str, options: dict[str, Any], own: _Own) -> Any:
    with setting(_SEARCHING, own.retriever):
        return own.search(query, **options)


async def _asearch_with(query: str, options: dict[str, Any], own: _Own) -> Any:
    with setting(_SEARCHING, own.retriever):
        return await own.search(query, **options)


_SEARCHES: dict[str, tuple[Callable[..., Any], ...]] = {
    "_get_relevant_documents": (_search, _search_with),
    "_aget_relevant_documents": (_asearch, _asearch_with),
}


def _method(
    search: Callable[..., Any], plain: Callable[..., Any], with_options: Callable[..., Any]
) -> Callable[..., Any]:
    """Return the method that takes *search*'s place; LangChain reads its signature."""

    @functools.wraps(search)
    def method(self: Any, query: str, **options: Any) -> Any:
        if _SEARCHING.get() is self:
            return search(self, query, **options)
        given = {n: options.pop(n) for n in ("run_manager",) if n in options}
        own = _Own(self, functools.partial(search, self, **given))
        if options:
            return with_options(query=query, options=options, own=own)
        return plain(query=query, own=own)

    return method


def _documents(found: Iterable[Document]) -> list[dict[str, Any]]:
    return [
        {
            "id": document.id or document.metadata.get("source"),
            "score": next((document.metadata[n] for n in _SCORES if n in document.metadata), None),
            "text": document.page_content,
        }
        for document in found
    ]
