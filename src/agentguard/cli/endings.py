"""How a run ended safely, as people read it: what was not done, why, and what is theirs to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .output import Line
from .text import arguments, capped, escaped, quoted, short, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model import Ending, RunInfo
    from .loading import Page


def ending_lines(run: RunInfo) -> Iterator[Line]:
    """Yield what stands on a run's page of its ending; nothing if it has none."""
    ending = run.ending
    if ending is None:
        return
    call = f"{escaped(ending.tool)} {arguments(ending.arguments)}".rstrip()
    step = f", step {ending.step}" if ending.step else ""
    yield Line("fell back", f"{_what(ending)}, because of {words(ending.cause)}", _state(ending))
    yield Line("not done", f"{call}{step}")
    if ending.why:
        yield Line("no better", capped(escaped(ending.why), 500), "note")
    if ending.text:
        label = "question" if ending.kind == "ask" else "it said"
        yield Line(label, capped(escaped(ending.text), 2000), _state(ending))
    if ending.answered_by is not None:
        said = "(no longer kept)" if ending.answer is None else quoted(ending.answer)
        yield Line("answer", f"{said} by {escaped(ending.answered_by)}", "approved")


def _what(ending: Ending) -> str:
    named = {"draft": "to a draft", "ticket": "to the ticket", "ask": "to a question"}
    what = named.get(ending.kind, f"to {escaped(ending.kind)}")
    return f"{what} {escaped(ending.reference)}".rstrip()


def _state(ending: Ending) -> str:
    return "waiting" if waits(ending) else ""


def waits(ending: Ending | None) -> bool:
    """Return whether a question waits for its answer."""
    return ending is not None and ending.kind == "ask" and ending.answered_by is None


def ending_hints(page: Page) -> Iterator[Line]:
    """Yield what a person can do about an ending."""
    if waits(page.run.ending):
        yield Line(
            "waits", f"agentguard runs answer {escaped(page.run.id)} TEXT --by YOU", "waiting"
        )
    for effect in page.effects.values():
        if effect.scope == "fallback" and effect.state == "in_doubt":
            name = escaped(effect.id) if len(effect.id) < 100 else short(effect.id)  # noqa: PLR2004
            yield Line("in doubt", f"{escaped(effect.tool)}: agentguard effects show {name}",
                       "in_doubt")  # fmt: skip
