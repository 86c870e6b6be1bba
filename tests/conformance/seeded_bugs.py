"""Bugs for the adapters: each a small wrong change, and the behaviour that must catch it."""

from __future__ import annotations

from tests.faults.seeded_bugs import Mutant, bug, change

GRAPH = "conformance/test_langgraph.py::Test{}::test_{}"
KERNEL = "conformance/test_semantic_kernel.py::TestAgent::test_{}"
LLAMA = "conformance/test_llamaindex.py::TestAgent::test_{}"

ADAPTER_MUTANTS: dict[str, Mutant] = {
    "a doubt closes nothing": bug(
        "test_failures.py::test_after_a_doubt_no_other_write_of_its_run_starts",
        "DID NOT RAISE",
        change("    doubt = _other_doubt(tx, intent)", "    doubt = None"),
    ),
    "langgraph: what halts a run is told to the model": bug(
        GRAPH.format("ToolNode", "a_kill_switch_stops_the_run"),
        "outcome.error is not None",
        change(
            "    return error.halts or isinstance(error, ApprovalRequired)\n\n\ndef for_caller",
            "    return isinstance(error, ApprovalRequired)\n\n\ndef for_caller",
        ),
    ),
    "langgraph: what a graph is resumed with decides nothing": bug(
        GRAPH.format("CreateAgent", "a_decision_through_the_runtimes_own_channel_counts"),
        "assert",
        change(
            "                self._problems.update(hand_over(self._guard, answer))",
            "                del answer",
        ),
    ),
    "langgraph: calls of one id are one call": bug(
        GRAPH.format("CreateAgent", "calls_that_share_an_id_are_told_apart"),
        "comment T-1 hello",
        change("    return max(len(equal or named) - 1, 0)", "    return 0"),
    ),
    "langgraph: a task without messages names no place": bug(
        GRAPH.format("FunctionalApi", "calls_that_share_an_id_are_told_apart"),
        "comment T-1 hello",
        change(" or (outer.run is not None and not named)", ""),
    ),
    "langchain: an edit is not told": bug(
        GRAPH.format("ToolNode", "the_model_is_told_what_a_person_changed"),
        "person changed",
        change("        if edits := _calls.leave(run_id):", "        if edits := {}:"),
    ),
    "semantic kernel: the loop goes on while a call waits": bug(
        KERNEL.format("a_call_that_needs_a_person_pauses_the_run"),
        "assert",
        change(
            "        context.terminate, told[UNFINISHED] = True, error.kind",
            "        told[UNFINISHED] = error.kind",
        ),
    ),
    "semantic kernel: what waited is not carried out": bug(
        KERNEL.format("an_approved_call_runs_once"),
        "assert",
        change("if r is None or UNFINISHED in r.metadata]", "if r is None]"),
    ),
    "semantic kernel: no place is kept with a call": bug(
        KERNEL.format("calls_that_share_an_id_are_told_apart"),
        "comment T-1 hello",
        change("    return path, number\n", "    return path, 0\n"),
    ),
    "semantic kernel: model calls are not reported": bug(
        KERNEL.format("no_more_model_calls_than_the_run_has"),
        "assert",
        change('    "_inner_get_chat_message_contents": _answering,\n', ""),
    ),
    "llamaindex: what halts a run is told to the model": bug(
        LLAMA.format("a_kill_switch_stops_the_run"),
        "outcome.error is not None",
        change(
            "        if error.halts or isinstance(error, ApprovalRequired):\n            raise error\n"
            "        output",
            "        if isinstance(error, ApprovalRequired):\n            raise error\n        output",
        ),
    ),
    "llamaindex: calls of one id are one call": bug(
        LLAMA.format("calls_that_share_an_id_are_told_apart"),
        "comment T-1 hello",
        change("    return int(turns.index(turn))", "    return 0"),
    ),
    "llamaindex: an edit is not told": bug(
        LLAMA.format("the_model_is_told_what_a_person_changed"),
        "person changed",
        change(
            "        output.blocks.append(TextBlock(text=edits_note(edits)))", "        del edits"
        ),
    ),
    "llamaindex: model calls are not reported": bug(
        LLAMA.format("no_more_model_calls_than_the_run_has"),
        "assert",
        change("    return None if _CALLING.get() else active_run()", "    return None"),
    ),
}
