"""One step, answered: what was asked, by whom, why it ran, what it wrote, how to undo it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ledger.compensating import UNDO
from .output import Line
from .text import (
    actor,
    arguments,
    capped,
    count,
    escaped,
    instant,
    money,
    person,
    quoted,
    result,
    short,
    span,
    value,
    words,
)
from .verdicts import verdict_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model import Approval, Effect, RunInfo
    from ..record import Question, Step, Vote
    from .loading import Page

_DOCUMENTS = 20
"""More documents of a retrieval are shown by `-o json` only."""


def answers(
    page: Page, step: Step, effect: Effect | None, approvals: dict[str, Approval]
) -> Iterator[Line]:
    """Yield the labelled lines of `runs show RUN --step N`."""
    yield Line(
        "step", f"{step.number} of {escaped(page.run.id)}, {words(step.outcome)}", step.outcome
    )
    yield Line("asked", _asked(step))
    yield Line("by", _by(page.run, step))
    yield Line("allowed", *_allowed(step))
    if step.plan or step.plan_step:
        yield Line("plan", _planned(step), "note" if step.plan else "")
    for question in step.questions:
        yield from _approval(step, question, approvals.get(question.approval_id))
    if not step.questions:
        yield Line("approval", "none: no rule asked a person" if step.key else "none")
    yield Line("wrote" if step.kind == "write" else "result", *_wrote(step, effect))
    yield from _retrieved(step)
    yield Line("idempotency", *_idempotency(step, effect))
    yield from _verdicts(step)
    yield Line("cost", _cost(step))
    yield Line("time", _time(page, step))
    yield Line("undo", _undo(step, effect))


def _asked(step: Step) -> str:
    if step.kind == "model":
        asked = "" if step.arguments is None else " " + result(step.arguments)
        prompt = f", prompt {escaped(step.prompt)}" if step.prompt else ""
        return f"model {escaped(step.name)}{prompt}{asked}"
    shown = arguments(step.arguments) if step.arguments is not None else _absent(step)
    return f"{escaped(step.name)} {shown}".rstrip()


def _absent(step: Step) -> str:
    """The chain keeps only a commitment; what it binds may have been erased."""
    if step.outcome == "duplicate":
        first = step.duplicates[0]
        return f"(the arguments of run {escaped(first.first_run)}, step {first.first_step})"
    return "(arguments no longer kept)"


def _by(run: RunInfo, step: Step) -> str:
    whose = f" on behalf of {escaped(run.on_behalf_of)}" if run.on_behalf_of else ""
    call = f", call {escaped(step.call_id)}" if step.call_id else ""
    return f"{actor(step.actor) or escaped(run.agent)}{whose}{call}"


def _allowed(step: Step) -> tuple[str, str]:
    if step.kind == "model":
        return "within the run's budget", ""
    if step.outcome == "duplicate":
        return "not decided anew: the recorded end was served", ""
    policy = f"policy {escaped(step.policy)}, " if step.policy else ""
    versions = f"{policy}contract {escaped(step.contract or '-')}"
    if step.refusal:
        return f"no, {words(step.refusal)}: {escaped(step.detail or '')}; {versions}", "refused"
    if step.questions:
        return f"a person had to decide: {escaped(step.questions[-1].rule)}; {versions}", ""
    return f"{escaped(step.rule or 'yes')}; {versions}", ""


def _planned(step: Step) -> str:
    named = f"step {step.plan_step} of the plan" if step.plan_step else "no step of the plan"
    return f"{named}, before its turn" if step.plan == "out of order" else named


def _approval(step: Step, question: Question, approval: Approval | None) -> Iterator[Line]:
    for vote in question.votes:
        yield Line("approval", _vote(question, vote, approval), "")
    yield Line("approval", *_standing(step, question, approval))


def _vote(question: Question, vote: Vote, approval: Approval | None) -> str:
    why = f" {quoted(vote.reason)}" if vote.reason else ""
    said = {"approve": "approved", "reject": "rejected", "edit": "edited"}.get(
        vote.decision, vote.decision
    )
    text = f"{words(said)} by {person(vote.person, vote.roles)} {instant(vote.at)}{why}"
    if vote.decision == "edit":
        edits = {
            n: v
            for n, v in ((approval.edits or {}) if approval else {}).items()
            if n in vote.changed
        }
        return f"{text}: {arguments(edits) or escaped(', '.join(vote.changed))}"
    stale = vote.generation != question.generation
    return text + (" (for an earlier generation, so it does not count)" if stale else "")


def _standing(step: Step, question: Question, approval: Approval | None) -> tuple[str, str]:
    hashed, name = short(question.payload_hash), short(question.approval_id)
    if question.executed_hash:
        same = question.executed_hash == question.payload_hash
        sign = "=" if same else "IS NOT"
        text = f"approved payload {hashed} {sign} executed payload {short(question.executed_hash)}"
        return text, "approved" if same else "failed"
    if question.status == "pending" and step.outcome == "waiting":
        expires = f", expires {instant(approval.expires_at)}" if approval else ""
        return f"waits for a person{expires}: agentguard approvals show {name}", "waiting"
    if question.status == "pending" and step.outcome == "drafted":
        return f"written down for a person: agentguard approvals show {name}", "drafted"
    if question.status == "approved" and question.stage:
        return f"payload {hashed} is approved: agentguard approvals execute {name}", "approved"
    if question.status == "approved":
        return f"payload {hashed} is approved and starts when the run goes on", "approved"
    return f"payload {hashed}: {words(question.status)}, nothing ran", question.status


def _wrote(step: Step, effect: Effect | None) -> tuple[str, str]:
    state = effect.state.value if effect else step.outcome
    name = f"; effect {short(effect.id)} {words(state)}" if effect and step.kind == "write" else ""
    if step.outcome == "in_doubt":
        doubt = words(step.doubt or "unknown")
        return (
            f"nobody knows ({doubt}): agentguard effects show {short(step.key)}",
            "in_doubt",
        )
    if step.outcome in ("waiting", "drafted", "approved", "rejected", "expired", "refused"):
        return f"nothing: the call did not start{name}", ""
    if step.outcome == "duplicate":
        return f"nothing: the recorded result was served{name}", ""
    if step.outcome in ("executing", "open"):
        return f"no end on record yet{name}", step.outcome
    return f"{_result(step)}{name}", state


def _result(step: Step) -> str:
    if step.outcome.startswith("failed"):
        happened = "nothing" if step.kind == "write" else "no result"
        return f"{happened}: {capped(escaped(step.detail or 'it failed'), 500)}"
    if step.rulings and step.rulings[-1].ruling == "happened" and step.result is None:
        return "it happened, as was ruled later"
    if not step.content:
        return "(no longer kept)"
    if step.retrieved is not None:
        return f"{count(len(step.retrieved), 'document')}; texts are not kept, their hashes are"
    if step.result is None:
        return f"(its result is {words(step.result_state or 'not kept')})"
    return result(step.result)


def _retrieved(step: Step) -> Iterator[Line]:
    found = step.retrieved or ()
    for document in found[:_DOCUMENTS]:
        name = "without an id" if document.id is None else capped(escaped(document.id), 200)
        score = "" if document.score is None else f", score {escaped(document.score)}"
        hashed = "" if document.sha256 is None else f", sha256 {document.sha256}"
        yield Line("retrieved", f"{name}{score}{hashed}")
    if len(found) > _DOCUMENTS:
        yield Line("retrieved", f"… {len(found) - _DOCUMENTS} more, see -o json")


def _idempotency(step: Step, effect: Effect | None) -> tuple[str, str]:
    if not step.key:
        return "no key: a read may be repeated" if step.kind == "read" else "no key", ""
    starts = [attempt.fence for attempt in step.attempts]
    times = (
        f"; {count(len(starts), 'attempt')}, fence {starts[-1]}" if starts else "; never started"
    )
    fence = f" (now {effect.fence})" if effect and starts and effect.fence != starts[-1] else ""
    text = f"key {escaped(step.key)}; {_use(step)}{times}{fence}"
    return text, "duplicate" if step.outcome == "duplicate" else ""


def _use(step: Step) -> str:
    if step.outcome == "duplicate":
        first = step.duplicates[0]
        return f"duplicate served from run {escaped(first.first_run)}, step {first.first_step}"
    if step.duplicates:
        last = instant(step.duplicates[-1].at)
        return f"first use, then {count(len(step.duplicates), 'duplicate')} served (last {last})"
    return "conflict" if step.refusal == "idempotency_conflict" else "first use"


def _verdicts(step: Step) -> Iterator[Line]:
    if step.evidence is not None:
        for when in ("before", "after"):
            yield Line(f"saw {when}", capped(value(step.evidence.get(when)), 500))
    for verdict in step.verdicts:
        yield from verdict_lines(verdict)
    for ruling in step.rulings:
        why = f" {quoted(ruling.reason)}" if ruling.reason else ""
        yield Line(
            "ruling", f"{words(ruling.ruling)}, by {actor(ruling.by)} {instant(ruling.at)}{why}"
        )
    if not step.verdicts:
        yield Line("verdict", "no verifier spoke")
    if step.late:
        said = words(str(step.late.get("outcome")))
        yield Line("late", f"an answer came after somebody else had ruled: {said}", "note")


def _cost(step: Step) -> str:
    if step.cost_usd is None:
        return f"unknown: {_why_unknown(step)}"
    texts = [f"{money(step.cost_usd)} of the run's budget"]
    if step.held_usd:
        texts.append(f"{money(step.held_usd)} still held")
    texts += [f"{money(a)} of {escaped(n)} ({escaped(s)})" for n, s, a in step.budgets]
    if step.tokens:
        cached = f" ({step.tokens['cached']} cached)" if step.tokens["cached"] else ""
        texts.append(f"{step.tokens['input']} tokens in{cached}, {step.tokens['output']} out")
    if step.price:
        texts.append(f"price of {escaped(step.price)}")
    return ", ".join(texts)


def _why_unknown(step: Step) -> str:
    if step.kind != "model":
        return "the tool's cost says that nobody knows"
    if not (step.tokens["input"] or step.tokens["output"]):
        return "the provider told no tokens"
    return "the model has no price"


def _time(page: Page, step: Step) -> str:
    texts = [instant(step.began_at)]
    worked = step.worked().total_seconds()
    if worked:
        texts.append(f"worked {span(worked)}")
    lost = [attempt for attempt in step.attempts if attempt.lost]
    if lost:
        texts.append(f"its process was lost, which was seen {instant(lost[-1].ended_at)}")
    waited = step.waited(page.now).total_seconds()
    if waited:
        texts.append(f"waited {span(waited)} for people")
    return ", ".join(texts)


def _undo(step: Step, effect: Effect | None) -> str:
    if step.kind != "write":
        return "nothing to undo"
    return undo_of(effect.undo if effect else None)


def undo_of(declared: str | None) -> str:
    """Return how an effect is undone, as declared."""
    if declared is None:
        return "none declared"
    if declared.startswith(UNDO):
        return f"undone: agentguard effects show {escaped(declared)}"
    return "irreversible" if declared == "irreversible" else f"declared: {escaped(declared)}"
