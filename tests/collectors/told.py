"""What the story of `examples/each_runtime` has to look like in a backend, whichever the runtime is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.collectors.sink import Span
from tests.collectors.tree import calls, drawn, parts

READ = (("get_ticket", "ok"), ("crm-find_tickets", "ok"))
TOLD = (("comment_ticket", "ok"), ("close_ticket", "ok"))
STORY = {  # run, part → how the part came out, and its calls
    ("r-1006", 1): ("success", (*READ, ("issue_refund", "ok"), *TOLD)),
    ("r-1003", 1): ("pending", (*READ, ("issue_refund", "pending"))),
    ("r-1003", 2): ("success", (("issue_refund", "ok"), *TOLD)),
    ("r-1001", 2): ("success", (("issue_refund", "duplicate_noop"), *TOLD)),
}
"""The first part of r-1001 ended with its process, which nobody could tell of."""
VERIFIED = (("r-1006", 1), ("r-1003", 2), ("r-1001", 2))
"""Where a refund was verified; by the first and the last, once payments had said that it happened."""
VERIFIER = "ledger_matches_ticket"


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict as a backend has it: on which span, whose, and in one word what it says."""

    span_id: str
    verifier: str
    label: str


def complaints(spans: Sequence[Span], verdicts: Iterable[Judged]) -> list[str]:
    """List what differs between what a backend has of one runtime and what happened."""
    found = [each for key in STORY for each in _of_part(spans, *key)]
    return found + list(_of_verdicts(spans, set(verdicts)))


def pictured(spans: Sequence[Span], verdicts: Iterable[Judged]) -> Iterator[str]:
    """Yield the lines that show what a backend has of one runtime, as the documents have them."""
    said: dict[str, list[str]] = {}
    for each in verdicts:
        said.setdefault(each.span_id, []).append(f"{each.verifier}: {each.label}")
    for run_id, part in STORY:
        root = root_of(spans, run_id, part)
        assert root is not None
        yield from ("```text", f"{run_id}, part {part}", *drawn(spans, root, said), "```", "")


def root_of(spans: Sequence[Span], run_id: str, part: int) -> Span | None:
    """Return the span of a part of a run."""
    found = [s for s in parts(spans, run_id) if s.attributes["agentguard.run.part"] == part]
    return found[0] if len(found) == 1 else None


def _of_part(spans: Sequence[Span], run_id: str, part: int) -> Iterator[str]:
    where = f"{run_id} part {part}"
    root = root_of(spans, run_id, part)
    if root is None:
        yield f"{where}: there is not exactly one span of it"
        return
    outcome, expected = STORY[run_id, part]
    made = calls(spans, root)
    if (had := tuple((tool_of(each), outcome_of(each)) for each in made)) != expected:
        yield f"{where}: the calls are {had}"
    if root.attributes.get("agentguard.run.outcome") != outcome:
        yield f"{where}: it came out as {root.attributes.get('agentguard.run.outcome')}"
    if (kind := root.attributes.get("openinference.span.kind")) != "CHAIN" or root.parent_id:
        yield f"{where}: its span is a {kind} below {root.parent_id or 'nothing'}"
    names = {"agentguard.run.id", "agentguard.tool.effect", "gen_ai.tool.name"}
    yield from (f"{where}: {each.name} lacks {names - {*each.attributes}}" for each in made
                if names - {*each.attributes})  # fmt: skip
    yield from (f"{where}: {each.name} hangs below no span" for each in made
                if not below(spans, each, root))  # fmt: skip
    yield from (f"{where}: {each.name} is an error" for each in made
                if each.status == "ERROR" and is_ours(each))  # fmt: skip


def _of_verdicts(spans: Sequence[Span], verdicts: set[Judged]) -> Iterator[str]:
    expected = {
        Judged(call.span_id, VERIFIER, "pass")
        for key in VERIFIED
        if (root := root_of(spans, *key))
        for call in calls(spans, root)
        if tool_of(call) == "issue_refund"
    }
    if verdicts != expected:
        yield f"the verdicts are {verdicts}, and should be {expected}"


def is_ours(span: Span) -> bool:
    """Tell our span from Semantic Kernel's, which is an error for SK when its call has to wait."""
    return span.name == f"execute_tool {tool_of(span)}"


def tool_of(span: Span) -> str:
    """Return the tool's name; Semantic Kernel writes that of its plugin before it."""
    return str(span.attributes.get("gen_ai.tool.name")).removeprefix("desk-")


def outcome_of(span: Span) -> str:
    """Return how a call came out."""
    return str(span.attributes.get("agentguard.tool.outcome"))


def below(spans: Sequence[Span], span: Span, root: Span) -> bool:
    """Tell whether *span* hangs below *root*, however deep."""
    by_id = {each.span_id: each for each in spans}
    above = by_id.get(span.parent_id)
    while above is not None and above is not root:
        above = by_id.get(above.parent_id)
    return above is root
