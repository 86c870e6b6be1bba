"""Bugs in the search for the span that is already there; each makes a second one or takes a wrong one."""

from __future__ import annotations

from tests.faults.seeded_bugs import BELOW, Mutant, bug, change

LLAMAINDEX_CHILD = "llamaindex: openinference llama-index"
BESIDE = "beside/test_beside.py::test_{}[{}]"
LANGCHAIN = f"agentguard_langchain/_beside.py{BELOW}"
LLAMAINDEX = f"agentguard_llama_workflows/_beside.py{BELOW}"

BESIDE_MUTANTS: dict[str, Mutant] = {
    "a call always makes its own span": bug(
        BESIDE.format("a_delivery_has_one_tool_span", "langgraph: genai langchain"),
        "None",
        change(
            "        if named == tool:\n            return current",
            "        if False:\n            return current",
        ),
    ),
    "langchain: a span that is not current is not found": bug(
        BESIDE.format("a_delivery_has_one_tool_span", "langgraph: openinference langchain"),
        "None",
        change(
            f"{LANGCHAIN}    if _OPENINFERENCE not in sys.modules:",
            "    if _OPENINFERENCE in sys.modules:",
        ),
    ),
    "langchain: a node is taken for a tool": bug(
        BESIDE.format(
            "no_span_is_taken_that_is_not_of_the_call", "langgraph: openinference langchain"
        ),
        "openinference",
        change(
            'if made and made.run_type == "tool" and (made.serialized or {}).get("name") == tool:',
            "if made and made.name == tool:",
        ),
    ),
    "llamaindex: a span that has no name yet is not found": bug(
        BESIDE.format("a_delivery_has_one_tool_span", LLAMAINDEX_CHILD),
        "None",
        change(
            f"{LLAMAINDEX}    if _OPENINFERENCE not in sys.modules:",
            "    if _OPENINFERENCE in sys.modules:",
        ),
    ),
    "llamaindex: a call inside a tool is taken for the tool's": bug(
        BESIDE.format("no_span_is_taken_that_is_not_of_the_call", LLAMAINDEX_CHILD),
        "openinference",
        change(' and found._attributes.get("tool.name") == tool:', ":"),
    ),
    "semantic kernel: a run hides the span around it": bug(
        BESIDE.format("a_delivery_has_one_tool_span", "semantic_kernel: alone"),
        "None",
        change(
            "        span = trace.get_current_span()  # of this execution: no filter has been called yet",
            "        span = trace.INVALID_SPAN",
        ),
    ),
}
