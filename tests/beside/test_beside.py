"""Beside five instrumentations and Semantic Kernel's own spans: one tool span for a delivery."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.beside.spans import OPERATION, OUTCOME, SAMPLED_OUT, Span
from tests.support import ROOT

pytestmark = pytest.mark.slow

ENDS = {
    "ok": ["ok"],
    "wait": ["pending", "ok"],
    "deny": ["denied"],
    "replay": ["ok", "duplicate_noop"],
    "two": ["ok", "ok"],
}
"""How the deliveries of a case end: a call that waits is delivered once more when it may go on."""

ALONE = ["langgraph: alone", "llamaindex: alone"]
BESIDE_ONE = [
    "langgraph: openinference langchain",
    "langgraph: openllmetry langchain",
    "langgraph: genai langchain",
    "llamaindex: openinference llama-index",
    "llamaindex: genai llama-index",
    "semantic_kernel: alone",
]
BESIDE_TWO = [
    "langgraph: genai langchain,openinference langchain",
    "llamaindex: genai llama-index,openinference llama-index",
]
UNSAMPLED = [
    f"langgraph: genai langchain,openinference langchain,{SAMPLED_OUT}",
    f"llamaindex: openinference llama-index,{SAMPLED_OUT}",
    f"semantic_kernel: {SAMPLED_OUT}",
]

OWN = {  # where nobody but us has a span for the guarded call
    "a function in a node of its name: ok",
    "a function in another tool: ok",
    "a function in another's: ok",
}
MORE = OWN | {  # where others have spans for tools that are not the guarded call
    "a tool as a function: ok",
    "a tool of a class: ok",
    "a tool in another tool: ok",
    "suppressed: ok",
}
WAITING = {
    "langgraph: alone": "UNSET",
    "langgraph: openinference langchain": "OK",
    "langgraph: openllmetry langchain": "OK",
    "langgraph: genai langchain": "OK",
    "llamaindex: alone": "UNSET",
    "llamaindex: openinference llama-index": "OK",
    "llamaindex: genai llama-index": "OK",
    "semantic_kernel: alone": "OK",
}
"""The status of the tool span of a call that waits."""

OF_THE_WHOLE = {
    "langgraph: openinference langchain": [],
    "langgraph: openllmetry langchain": ["create_agent", "invoke_agent", "invoke_agent"],
    "langgraph: genai langchain": ["invoke_agent"],
    "llamaindex: openinference llama-index": [],
    "llamaindex: genai llama-index": ["invoke_agent"],
    "semantic_kernel: alone": [],
}
"""Which operations others have spans of for the whole run of an agent, beside our one."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a child process has shown."""

    cases: Mapping[str, list[Span]]
    imported: list[str]

    def tools(self, *but: str) -> dict[str, list[str | None]]:
        """Return what each tool span of each case says came of a guarded call."""
        return {
            case: [span.attributes.get(OUTCOME) for span in spans if span.is_tool]
            for case, spans in self.cases.items()
            if case not in but
        }

    def calls(self) -> dict[str, list[Span]]:
        """Return the spans that tell of guarded calls."""
        cases = self.cases.items()
        return {case: [s for s in spans if OUTCOME in s.attributes] for case, spans in cases}


def ends(cases: Iterable[str]) -> dict[str, list[str]]:
    """Return how the deliveries of each case end."""
    return {case: ENDS[case.rpartition(": ")[2]] for case in cases}


def started(child: str) -> Shown:
    """Run a child; it has a seeded bug in it if this process has."""
    program, _, names = child.partition(": ")
    module = ["tests.faults.mutants", f"tests.beside.{program}_child", names]
    ended = subprocess.run(
        [sys.executable, "-m", *module],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    cases = {case: [Span(**span) for span in spans] for case, spans in told["cases"].items()}
    return Shown(cases, told["imported"])


@pytest.fixture(scope="module", name="children")
def of_this_module(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[Shown]]]:
    """Start the children of the tests that were selected, two at a time."""
    here = Path(__file__)
    wanted: dict[str, None] = {}
    for item in request.session.items:
        call = getattr(item, "callspec", None)
        if item.path == here and call is not None:
            wanted[call.params["child"]] = None
    with ThreadPoolExecutor(2) as pool:
        yield {child: pool.submit(started, child) for child in wanted}


@pytest.fixture(name="shown")
def of_one_child(children: Mapping[str, Future[Shown]], child: str) -> Shown:
    """Wait for what the child shows."""
    return children[child].result()


@pytest.mark.parametrize("child", [*ALONE, *BESIDE_ONE])
def test_a_delivery_has_one_tool_span(child: str, shown: Shown) -> None:
    """Whoever makes it, one span shows the call as a tool, and says what came of it."""
    found = shown.tools(*MORE)
    assert found == ends(found), child


@pytest.mark.parametrize("child", BESIDE_TWO)
def test_beside_two_there_is_one_from_each_and_none_from_us(child: str, shown: Shown) -> None:
    """Theirs stay as many as without us, and one of them tells of the call."""
    found = shown.tools(*MORE)
    one_of_two = {case: sorted([*end, *[""] * len(end)]) for case, end in ends(found).items()}
    assert {case: sorted(one or "" for one in end) for case, end in found.items()} == one_of_two
    assert not [s for case in found for s in shown.calls()[case] if s.scope == "agentguard"], child


@pytest.mark.parametrize("child", [*BESIDE_ONE, *BESIDE_TWO])
def test_no_span_is_taken_that_is_not_of_the_call(child: str, shown: Shown) -> None:
    """A tool that calls another's function, or a node of a tool's name, is not that tool's call."""
    calls = {case: spans for case, spans in shown.calls().items() if case in OWN}
    assert calls
    assert {case: [span.scope for span in spans] for case, spans in calls.items()} == {
        case: ["agentguard"] for case in calls
    }, child


@pytest.mark.parametrize("child", [*ALONE, *BESIDE_ONE, *BESIDE_TWO])
def test_the_span_tells_of_the_call(child: str, shown: Shown) -> None:
    """Run, tool, outcome and operation stand on it, whoever made it."""
    for case, spans in shown.calls().items():
        assert [span.attributes[OUTCOME] for span in spans] == ends([case])[case], (child, case)
        for span in spans:
            told = span.attributes
            assert told["agentguard.run.id"].endswith(case) or "invoke, " in case
            assert told["agentguard.tool.effect"] == "write"
            assert told[OPERATION] == "execute_tool"
            assert told["gen_ai.tool.name"].split("-")[-1].split(".")[-1] in ("pay", "drop")


@pytest.mark.parametrize("child", [*ALONE, *BESIDE_ONE, *BESIDE_TWO])
def test_what_the_body_does_hangs_below_the_span(child: str, shown: Shown) -> None:
    """A request that the tool makes belongs to its call, also where its span is not current."""
    for case, spans in shown.cases.items():
        by_id = {span.id: span for span in spans}
        for body in (span for span in spans if span.name == "body"):
            above = by_id.get(body.parent or "")
            while above is not None and OUTCOME not in above.attributes:
                above = by_id.get(above.parent or "")
            assert above is not None, (child, case)


@pytest.mark.parametrize("child", WAITING)
def test_a_call_that_waits_is_no_error(child: str, shown: Shown) -> None:
    """Its span is no error, also where the instrumentation sees an exception pass; no error is ours."""
    waiting = [s for s in every(shown) if s.attributes[OUTCOME] == "pending"]
    assert {span.status for span in waiting} == {WAITING[child]}
    said = [span.attributes.get("error.type", "") for span in waiting]
    assert waiting
    assert not [kind for kind in said if kind.startswith("agentguard.")]


@pytest.mark.parametrize("child", WAITING)
def test_a_denied_call_is_an_error_with_our_reason(child: str, shown: Shown) -> None:
    """Whatever the instrumentation makes of it, the span has the outcome and the status."""
    denied = [s for s in every(shown) if s.attributes[OUTCOME] == "denied"]
    assert {span.status for span in denied} == {"ERROR"}, child
    assert denied


def every(shown: Shown) -> list[Span]:
    """Return the spans of all guarded calls that a child has made."""
    return [span for spans in shown.calls().values() for span in spans]


@pytest.mark.parametrize("child", [*ALONE, *BESIDE_ONE])
def test_the_parts_of_a_run_that_waited_are_linked(child: str, shown: Shown) -> None:
    """The part that goes on points to the part that stopped to wait."""
    waits = [case for case in shown.cases if case.endswith(": wait") and "middleware" not in case]
    for case in waits:
        first, second = (span for span in shown.cases[case] if is_part(span))
        assert (first.links, second.links) == ([], [first.id]), (child, case)


def is_part(span: Span) -> bool:
    """Tell whether a span is ours, of a part of a run."""
    return span.scope == "agentguard" and span.attributes[OPERATION] == "invoke_workflow"


@pytest.mark.parametrize("child", OF_THE_WHOLE)
def test_spans_of_the_whole_that_others_make_too(child: str, shown: Shown) -> None:
    """Beside our workflow span there are theirs, as the documents say, and only those."""
    case = next(case for case in shown.cases if case.endswith(": ok"))
    agents = ("create_agent", "invoke_agent", "invoke_workflow")
    found = [span for span in shown.cases[case] if span.attributes.get(OPERATION) in agents]
    theirs = [span.attributes[OPERATION] for span in found if span.scope != "agentguard"]
    assert sorted(theirs) == OF_THE_WHOLE[child]
    assert len(found) == len(theirs) + 1


@pytest.mark.parametrize("child", ["langgraph: genai langchain"])
def test_the_conventions_spans_of_the_whole_can_be_switched_off(child: str, shown: Shown) -> None:
    """With `otel_trace` false in the metadata, theirs are gone; the tool's span stays one."""
    spans = shown.cases["otel_trace=False: ok"]
    found = [(s.scope == "agentguard", s.attributes.get(OPERATION)) for s in spans if s.attributes]
    assert sorted(found, key=str) == [
        (False, "chat"),
        (False, "chat"),
        (False, "execute_tool"),
        (True, "invoke_workflow"),
    ], child


@pytest.mark.parametrize(
    "child", ["langgraph: openinference langchain", "langgraph: openllmetry langchain"]
)
def test_where_an_instrumentation_is_suppressed_the_span_is_ours(child: str, shown: Shown) -> None:
    """No span of theirs to use, so there is one of our own."""
    calls = shown.calls()["suppressed: ok"]
    assert [(span.scope, span.name) for span in calls] == [("agentguard", "execute_tool pay")], (
        child
    )


@pytest.mark.parametrize("child", UNSAMPLED)
def test_a_trace_that_is_not_sampled_has_no_span_of_ours(child: str, shown: Shown) -> None:
    """A tool span that an instrumentation does not record is not made up for."""
    assert {case: spans for case, spans in shown.cases.items() if spans} == {}, child


@pytest.mark.parametrize("child", [*ALONE, *BESIDE_ONE])
def test_no_instrumentation_is_imported_by_us(child: str, shown: Shown) -> None:
    """Only what the application has imported is there."""
    assert len(shown.imported) == (not child.endswith("alone")), child
