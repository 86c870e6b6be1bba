"""A guarded retriever: what was found is on record, however it is asked."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import QueryEngineTool, RetrieverTool, ToolMetadata

from agentguard import BudgetExceeded, ConfigurationError, Guard, PermissionDenied, Principal
from agentguard_llamaindex import guard_llm, guard_retriever, guard_workflow
from tests.llamaindex.world import Scripted, agent, answers, call


class Shelf(BaseRetriever):
    """Finds two notes for everything; async in a way of its own."""

    def __init__(self, *, asynchronous: bool = True) -> None:
        super().__init__()
        self.asynchronous = asynchronous
        self.asked: list[str] = []

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self.asked.append(query_bundle.query_str)
        nodes = [TextNode(id_="a", text="note a"), TextNode(id_="b", text="note b")]
        return [NodeWithScore(node=node, score=0.5) for node in nodes]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._retrieve(query_bundle)


class Plain(Shelf):
    """Has no async way of its own: LlamaIndex's uses the sync one."""

    _aretrieve = BaseRetriever._aretrieve


def retrieved(guard: Guard, run_id: str = "r-1") -> list[Any]:
    """What the record says was found."""
    events = guard.runs.events(run_id)
    return [event.data["documents"] for event in events if event.kind == "retrieved"]


FOUND = [
    {"id": name, "score": "0.5", "sha256": hashlib.sha256(f"note {name}".encode()).hexdigest()}
    for name in "ab"
]


async def use(way: str, retriever: Any) -> str:
    """Ask a retriever in one of the ways that LlamaIndex has."""
    metadata = ToolMetadata(name="search", description="Search.")
    synthesizer = get_response_synthesizer(llm=guard_llm(Scripted(script=["answer"])))
    engine = RetrieverQueryEngine(retriever, response_synthesizer=synthesizer)
    ways: dict[str, Any] = {
        "retrieve": lambda: retriever.retrieve("hello"),
        "aretrieve": lambda: retriever.aretrieve("hello"),
        "query": lambda: engine.query("hello"),
        "aquery": lambda: engine.aquery("hello"),
        "RetrieverTool": lambda: RetrieverTool(retriever, metadata).call("hello"),
        "aRetrieverTool": lambda: RetrieverTool(retriever, metadata).acall("hello"),
        "QueryEngineTool": lambda: QueryEngineTool(engine, metadata).call("hello"),
        "aQueryEngineTool": lambda: QueryEngineTool(engine, metadata).acall("hello"),
    }
    answer = ways[way]()
    return str(await answer if way.startswith("a") else answer)


WAYS = ["retrieve", "query", "RetrieverTool", "QueryEngineTool"]


@pytest.mark.parametrize("kind", [Shelf, Plain])
@pytest.mark.parametrize("way", [*WAYS, *(f"a{way}" for way in WAYS)])
async def test_every_way_to_retrieve_is_one_retrieval_on_record(
    guard: Guard, kind: type[Shelf], way: str
) -> None:
    """Ids, scores and hashes are in the record, no texts; the answer is that of the bare one."""
    async with guard.run("ask", run_id="r-1"):
        answer = await use(way, guard_retriever(kind(), guard, name="notes"))
    assert answer == await use(way, kind())
    assert retrieved(guard) == [FOUND]


async def test_retrieval_has_a_budget_and_scopes(guard: Guard) -> None:
    """A refused retrieval is not made."""
    shelf = Shelf()
    retriever = guard_retriever(shelf, guard, name="notes", max_calls=1, scopes=["notes:read"])
    async with guard.run("ask", principal=Principal(scopes=frozenset({"else"}))):
        with pytest.raises(PermissionDenied):
            await retriever.aretrieve("hello")
    async with guard.run("ask"):
        await retriever.aretrieve("one")
        with pytest.raises(BudgetExceeded):
            retriever.retrieve("two")
    assert shelf.asked == ["one"]


async def test_an_agent_retrieves_inside_its_run(guard: Guard) -> None:
    """A retriever as the tool of a guarded agent."""
    search = RetrieverTool(
        guard_retriever(Shelf(), guard), ToolMetadata(name="search", description="Search.")
    )
    script = [call(("search", {"input": "hello"}, "1")), "done"]
    workflow = guard_workflow(agent("FunctionAgent", script, [search]), guard)
    ((is_error, text),) = answers(await workflow.run(user_msg="hello", run_id="r-1"))
    assert (is_error, "note a" in text) == (False, True)
    assert retrieved(guard) == [FOUND]


def test_it_stays_what_it_was(guard: Guard) -> None:
    """The guarded retriever is of the retriever's class; what is no retriever is refused."""
    assert isinstance(guard_retriever(Shelf(), guard), Shelf)
    anything: Any = "notes"
    with pytest.raises(ConfigurationError, match="takes a retriever, not str"):
        guard_retriever(anything, guard)
