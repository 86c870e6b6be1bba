"""A guarded retriever is the same retriever to LangChain, and each of its searches is on record."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    BaseCallbackHandler,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import create_retriever_tool
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests
from langgraph.graph import MessagesState, StateGraph

from agentguard import (
    BudgetExceeded,
    ConfigurationError,
    Guard,
    PermissionDenied,
    Principal,
    RunHalted,
    ToolTimeout,
)
from agentguard.record import Retrieved, Step, fold
from agentguard_langchain import guard_retriever
from agentguard_langgraph import guard_graph
from agentguard_langgraph import guard_retriever as same_name
from tests.langgraph.world import HELLO, Scripted, answers, call, looped, one_node, say

DOCS = [
    Document("Refunds take five days.", id="kb-7", metadata={"relevance_score": 0.91}),
    Document("Shipping is free.", metadata={"source": "shipping.md"}),
]


class Sync(BaseRetriever):
    """Searches in one colour; LangChain makes the other of it."""

    docs: list[Document] = DOCS
    k: int = 2

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        assert run_manager is not None
        return self.docs[: self.k]


class Both(Sync):
    """Searches in both colours."""

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        await asyncio.sleep(0)
        return self.docs[: self.k]


class Crossed(Sync):
    """Searches on an event loop through its own other colour."""

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        return self._get_relevant_documents(query, run_manager=run_manager.get_sync())


class Old(BaseRetriever):
    """Knows nothing of run managers."""

    docs: list[Document] = DOCS

    def _get_relevant_documents(self, query: str) -> list[Document]:  # type: ignore[override]
        return self.docs


class Choosy(Sync):
    """Takes more than a query."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return self.docs[: self.k if k is None else k]


def vectors() -> BaseRetriever:
    """What most people have: a vector store's own retriever."""
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_documents(DOCS, ids=["kb-7", "kb-2"])
    found: BaseRetriever = store.as_retriever(search_kwargs={"k": 2})
    return found


KINDS: dict[str, Callable[[], BaseRetriever]] = {
    "sync": Sync, "both": Both, "crossed": Crossed, "old": Old, "choosy": Choosy,
    "vector store": vectors,
}  # fmt: skip


async def _gathered(retriever: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(retriever.ainvoke("refund?"))
    return task.result()


WAYS: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda r: r.invoke("refund?"),
    "ainvoke": lambda r: asyncio.run(r.ainvoke("refund?")),
    "in a task": lambda r: asyncio.run(_gathered(r)),
    "batch": lambda r: r.batch(["refund?"])[0],
    "abatch": lambda r: asyncio.run(r.abatch(["refund?"]))[0],
    "stream": lambda r: next(iter(r.stream("refund?"))),
    "pipe": lambda r: (r | RunnableLambda(lambda found: found)).invoke("refund?"),
    "piped into": lambda r: (RunnableLambda(str) | r).invoke("refund?"),
    "in a map": lambda r: dict(RunnableParallel(found=r, q=str).invoke("refund?"))["found"],
    "with_config": lambda r: r.with_config(tags=["t"]).invoke("refund?"),
    "with_retry": lambda r: r.with_retry().invoke("refund?"),
    "with_fallbacks": lambda r: r.with_fallbacks([r]).invoke("refund?"),
    "copy": lambda r: copy.copy(r).invoke("refund?"),
    "model_copy": lambda r: r.model_copy().invoke("refund?"),
}


def only_step(guard: Guard, run_id: str = "r") -> Step:
    """The one step of a run."""
    (step,) = fold(guard.runs.events(run_id))
    return step


def sha(text: str) -> str:
    """What `sha256sum` says of a text file."""
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_search_is_one_recorded_retrieval(guard: Guard, kind: str, way: str) -> None:
    """Whatever LangChain makes of it finds what the bare one finds, and the record says what."""
    bare = KINDS[kind]()
    search = guard_retriever(bare, guard, name="search")
    expected = WAYS[way](bare)
    with guard.run(run_id="r"):
        assert WAYS[way](search) == expected
    step = only_step(guard)
    assert (step.name, step.kind, step.arguments) == ("search", "read", {"query": "refund?"})
    assert [found.sha256 for found in step.retrieved or ()] == [
        sha(document.page_content) for document in expected
    ]


def test_a_documents_id_source_and_score_are_told(guard: Guard) -> None:
    """Its own id, or else its source, and the score that its metadata has."""
    with guard.run(run_id="r"):
        guard_retriever(Sync(), guard).invoke("?")
    assert only_step(guard).retrieved == (
        Retrieved("kb-7", "0.91", sha("Refunds take five days.")),
        Retrieved("shipping.md", None, sha("Shipping is free.")),
    )


def test_without_a_name_it_has_its_own(guard: Guard) -> None:
    """A retriever that is not named is called what LangChain calls it."""
    with guard.run(run_id="r"):
        guard_retriever(Sync(), guard).invoke("?")
        guard_retriever(Sync(name="kb"), guard).invoke("?")
    assert [step.name for step in fold(guard.runs.events("r"))] == ["Sync", "kb"]


@pytest.mark.parametrize(
    ("kind", "asynchronous"), [("choosy", False), ("vector store", False), ("vector store", True)]
)
def test_options_of_one_search_reach_it_and_the_record(
    guard: Guard, kind: str, *, asynchronous: bool
) -> None:
    """What is passed with the query limits the search, and is an argument of the retrieval."""
    search = guard_retriever(KINDS[kind](), guard)
    with guard.run(run_id="r"):
        found = asyncio.run(search.ainvoke("?", k=1)) if asynchronous else search.invoke("?", k=1)
    assert len(found) == 1
    assert only_step(guard).arguments == {"query": "?", "options": {"k": 1}}


def test_options_that_the_retriever_does_not_take_are_left_out_as_before(guard: Guard) -> None:
    """LangChain drops what a search does not take, and still does."""
    with guard.run(run_id="r"):
        assert guard_retriever(Sync(), guard).invoke("?", k=1) == DOCS
    assert only_step(guard).arguments == {"query": "?"}


def test_the_same_retriever_to_everybody_else(guard: Guard) -> None:
    """Class, fields, name and schemas are the retriever's; it may be changed like it."""
    bare = Sync(tags=["t"], k=1)
    search = guard_retriever(bare, guard)
    assert isinstance(search, Sync)
    assert (search.tags, search.k, search.get_name()) == (["t"], 1, "Sync")
    assert search.get_input_jsonschema() == bare.get_input_jsonschema()
    search.k = 2
    with guard.run():
        assert search.invoke("?") == DOCS
    assert bare.invoke("?") == DOCS[:1]


def test_the_retriever_itself_stays_unguarded(guard: Guard) -> None:
    """Guarding makes a copy."""
    bare = Sync()
    guard_retriever(bare, guard)
    bare.invoke("?")
    assert guard.runs.list() == []


def test_a_copied_object_graph_keeps_the_guard(guard: Guard) -> None:
    """Runtimes deepcopy what they hold."""
    search = copy.deepcopy(guard_retriever(Sync(), guard))
    with guard.run(run_id="r"):
        search.invoke("?")
    assert only_step(guard).retrieved


def test_callbacks_hear_of_one_search(guard: Guard) -> None:
    """A handler is told of start and end once, with the query and the documents."""
    heard: list[Any] = []

    class Heard(BaseCallbackHandler):
        def on_retriever_start(self, serialized: Any, query: str, **_: Any) -> None:
            heard.append(query)

        def on_retriever_end(self, documents: Any, **_: Any) -> None:
            heard.append(documents)

    search = guard_retriever(Crossed(), guard)
    with guard.run():
        search.invoke("sync", {"callbacks": [Heard()]})
        asyncio.run(search.ainvoke("async", {"callbacks": [Heard()]}))
    assert heard == ["sync", DOCS, "async", DOCS]


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_search_does_not_search(guard: Guard, kind: str) -> None:
    """Over the budget the retriever's own code does not run, in either colour."""
    search = guard_retriever(KINDS[kind](), guard, max_calls=1)
    with guard.run():
        search.invoke("1")
        with pytest.raises(BudgetExceeded):
            search.invoke("2")
        with pytest.raises(BudgetExceeded):
            asyncio.run(search.ainvoke("3"))


def test_a_batch_does_not_overshoot(guard: Guard) -> None:
    """Of twenty searches at once as many are made as the budget has room for."""
    made: list[str] = []
    lock = threading.Lock()

    class Counted(Sync):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            with lock:
                made.append(query)
            return []

    search = guard_retriever(Counted(), guard, max_calls=7)
    with guard.run():
        found = search.batch([str(n) for n in range(20)], return_exceptions=True)
    assert (len(made), sum(isinstance(f, BudgetExceeded) for f in found)) == (7, 13)


def test_policy_by_name_comes_from_the_configuration(tmp_path: Path) -> None:
    """What the file says about a tool of this name holds for the retriever."""
    file = tmp_path / "agent_run.yaml"
    file.write_text(
        "agent_run:\n  tools:\n    search:\n      effect: read\n      scopes: [kb]\n"
        "      timeout: 30\n      isolation: thread\n"
    )
    guard = Guard.from_config(file, store=f"sqlite:///{tmp_path}/a.db")
    search = guard_retriever(Both(), guard, name="search")
    with guard.run(principal=Principal(scopes=frozenset())):
        for way in ("invoke", "ainvoke"):
            with pytest.raises(PermissionDenied, match="search needs the scope kb"):
                WAYS[way](search)
    with guard.run():
        assert WAYS["ainvoke"](search) == WAYS["invoke"](search) == DOCS
    guard.close()


async def test_a_slow_search_is_cancelled_at_its_deadline(guard: Guard) -> None:
    """One policy for both colours gives up the one that runs on the loop by cancelling it."""
    ended: list[str] = []

    class Slow(Sync):
        async def _aget_relevant_documents(self, query: str, *, run_manager: Any) -> Any:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(query)

    search = guard_retriever(Slow(), guard, timeout=0.01, isolation="thread")
    async with guard.run():
        with pytest.raises(ToolTimeout):
            await search.ainvoke("?")
    assert ended == ["?"]


def test_the_kill_switch_stops_it(guard: Guard) -> None:
    """A switch on its name is a switch on the retriever."""
    search = guard_retriever(Sync(), guard, name="search")
    guard.kill(tool="search", by="dana", reason="leaks")
    with guard.run(), pytest.raises(RunHalted, match="leaks"):
        search.invoke("?")


def test_only_a_retriever_can_be_guarded_and_only_once(guard: Guard) -> None:
    """What cannot be guarded is refused with the sentence that says what to do."""
    bound: Any = Sync().with_config(tags=["t"])
    with pytest.raises(ConfigurationError, match="not RunnableBinding: guard it before"):
        guard_retriever(bound, guard)
    with pytest.raises(ConfigurationError, match="call guard_retriever once"):
        guard_retriever(guard_retriever(Sync(), guard), guard)
    with pytest.raises(ConfigurationError, match='leave effect="write" out'):
        guard_retriever(Sync(), guard, effect="write")


def test_a_retriever_over_guarded_retrievers_counts_each(guard: Guard) -> None:
    """The outer search and those that it makes are retrievals of their own."""
    inner = guard_retriever(Sync(), guard, name="inner")

    class Merging(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return [*inner.invoke(query), *inner.invoke(query)]

    with guard.run(run_id="r"):
        assert len(guard_retriever(Merging(), guard, name="outer").invoke("?")) == 4
    assert sorted(s.name for s in fold(guard.runs.events("r"))) == ["inner", "inner", "outer"]


# In graphs.


@pytest.mark.parametrize("asynchronous", [False, True])
def test_in_a_node_of_a_guarded_graph(guard: Guard, *, asynchronous: bool) -> None:
    """A search in a node is a step of the graph's run."""
    search = same_name(Both(), guard)

    def node(_: MessagesState) -> dict[str, Any]:
        return {"messages": [("ai", search.invoke("?")[0].page_content)]}

    async def anode(_: MessagesState) -> dict[str, Any]:
        return {"messages": [("ai", (await search.ainvoke("?"))[0].page_content)]}

    graph = guard_graph(one_node(anode if asynchronous else node).compile(), guard, run_id="r")
    result = asyncio.run(graph.ainvoke(HELLO)) if asynchronous else graph.invoke(HELLO)
    assert result["messages"][-1].content == "Refunds take five days."
    assert len(only_step(guard).retrieved or ()) == 2


class Asked(TypedDict):
    """A question and what was found."""

    q: str
    found: list[Document]


def test_a_retriever_that_is_a_node(guard: Guard) -> None:
    """A chain that ends in a guarded retriever may be a node itself."""
    builder = StateGraph(Asked)
    asked: Any = RunnableLambda(lambda state: state["q"])
    builder.add_node("search", asked | guard_retriever(Sync(), guard) | (lambda d: {"found": d}))
    builder.set_entry_point("search")
    graph = guard_graph(builder.compile(), guard, run_id="r")
    assert graph.invoke({"q": "?", "found": []})["found"] == DOCS
    assert only_step(guard).retrieved


def searching_agent(search: BaseRetriever) -> Any:
    """A model that searches once, through LangChain's own tool over a retriever."""
    tool = create_retriever_tool(search, "search", "Search the knowledge base.")
    return looped(Scripted(script=[call(("search", {"query": "?"}, "c-1")), say()]), [tool])


def test_as_a_tool_it_knows_the_models_call(guard: Guard) -> None:
    """A search that a model asked for stands in the record under that call's id."""
    graph = guard_graph(
        searching_agent(guard_retriever(Sync(), guard, name="kb")).compile(), guard, run_id="r"
    )
    ((status, told),) = answers(graph.invoke(HELLO))
    assert (status, told) == ("success", "Refunds take five days.\n\nShipping is free.")
    (step,) = [s for s in fold(guard.runs.events("r")) if s.retrieved is not None]
    assert (step.name, step.call_id) == ("kb", "c-1")


def test_a_refusal_is_told_to_the_model_as_of_every_tool(guard: Guard) -> None:
    """In a tool call, what the model may hear of becomes its answer."""
    search = guard_retriever(Sync(), guard, scopes=["kb"])
    graph = guard_graph(
        searching_agent(search).compile(), guard, principal=Principal(scopes=frozenset())
    )
    ((status, told),) = answers(graph.invoke(HELLO))
    assert (status, json.loads(told)["error"]) == ("error", "permission_denied")


def test_a_refusal_that_halts_ends_the_invocation(guard: Guard) -> None:
    """Over its budget the search ends the graph instead of being told to the model."""
    search = guard_retriever(Sync(), guard, max_calls=0)
    with pytest.raises(BudgetExceeded):
        guard_graph(searching_agent(search).compile(), guard).invoke(HELLO)


def test_searches_of_two_runs_do_not_mix(guard: Guard) -> None:
    """Side by side, each run has its own searches."""
    search = guard_retriever(Both(), guard)

    async def ask(run_id: str) -> None:
        async with guard.run(run_id=run_id):
            await asyncio.gather(*(search.ainvoke(f"{run_id} {n}") for n in range(5)))

    async def both() -> None:
        await asyncio.gather(ask("a"), ask("b"))

    asyncio.run(both())
    for name in ("a", "b"):
        asked = [step.arguments["query"] for step in fold(guard.runs.events(name))]
        assert sorted(asked) == [f"{name} {n}" for n in range(5)]


class TestGuardedRetriever(RetrieversIntegrationTests):
    """LangChain's own standard tests hold for a guarded retriever."""

    @pytest.fixture(autouse=True)
    def _in_a_run(self, guard: Guard) -> Iterator[None]:
        self.guard = guard
        with guard.run():
            yield

    @property
    def retriever_constructor(self) -> Any:
        """Make a guarded one of a class that finds as many as it is told."""
        return lambda **given: guard_retriever(
            Choosy(docs=[Document(str(n)) for n in range(5)], **given), self.guard
        )

    @property
    def retriever_query_example(self) -> str:
        """Some question."""
        return "refund?"
