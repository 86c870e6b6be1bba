"""The room of plans: what a run may do is said before it does it, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ._runtime import AsyncioRuntime, InlineRuntime, run_inline
from .canonical import jsonable
from .errors import ConfigurationError, ContractViolation
from .ledger import plans as record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ._meter import Meter
    from ._runtime import Runtime
    from .ledger.values import Pending, RunRef
    from .redaction import Redactor
    from .templates import Template
    from .tool import Tool

T = TypeVar("T")
OUTSIDE = ("note", "ask", "refuse")
"""What becomes of a call outside the plan; the later in this row, the stricter."""
MOST_STEPS = 1000
"""A longer plan is no plan that anybody has read."""
_KEYS = frozenset({"tool", "arguments", "repeat"})


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan, as it is given: some calls of a tool, with some of its arguments."""

    tool: str
    arguments: Mapping[str, Any]
    repeat: int = 1


class Sheets(Protocol):
    """What a plan needs from a guard: what is known of the tools that it names."""

    @property
    def templates(self) -> Mapping[str, Template]:
        """The templates by name."""
        ...

    def sheet(self, tool: Any) -> tuple[str, Tool | None]:
        """Return a tool's name, and its sheet if it was bound already."""
        ...


class Running(Protocol):
    """What a plan needs from a run."""

    guard: Any
    id: str
    part: int
    ref: RunRef
    meter: Meter
    plans: record.Plans
    hash_key: bytes
    redactor: Redactor

    async def commit(
        self, runtime: Runtime, taken: Pending, verb: Callable[..., T], *args: Any
    ) -> T:
        """Run one verb that also writes the waiting events."""
        ...


def steps_of(given: Iterable[Any], guard: Sheets | None) -> tuple[list[Step], list[Tool | None]]:
    """Return the steps of a plan, checked, and the sheets of the tools that are known.

    Raises:
        ConfigurationError: a step is none, or names an argument that its tool does not have.
    """
    if isinstance(given, str | bytes | dict):
        raise ConfigurationError('a plan is a list of steps, such as [{"tool": "close_ticket"}]')
    found = [_step(number, item, guard) for number, item in enumerate(given, 1)]
    if not 1 <= len(found) <= MOST_STEPS:
        raise ConfigurationError(f"a plan has from 1 to {MOST_STEPS} steps; this one {len(found)}")
    return [step for step, _ in found], [sheet for _, sheet in found]


def _step(number: int, item: Any, guard: Sheets | None) -> tuple[Step, Tool | None]:
    where = f"plan, step {number}"
    if not isinstance(item, dict) or "tool" not in item or not item.keys() <= _KEYS:
        raise ConfigurationError(
            f"{where}: a step is a dict with tool and, if need be, arguments and repeat"
        )
    tool, arguments, repeat = item["tool"], item.get("arguments", {}), item.get("repeat", 1)
    name, sheet = (tool, None) if guard is None else guard.sheet(tool)
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{where}: tool is a tool's name, or a decorated function")
    if type(repeat) is not int or repeat < 1:
        raise ConfigurationError(f"{where}: repeat is a whole number from 1")
    if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
        raise ConfigurationError(f"{where}: arguments is a dict by the names of arguments")
    if sheet is not None:
        check_names(where, sheet, arguments)
    return Step(name, arguments, repeat), sheet


def check_names(where: str, tool: Tool, arguments: Iterable[str]) -> None:
    """Refuse names that are no arguments of *tool*.

    Raises:
        ConfigurationError: with the names that there are.
    """
    for name in arguments:
        if name not in tool.parameters:
            has = ", ".join(tool.parameters) or "none"
            raise ConfigurationError(f"{where}: {tool.name} has no argument {name!r}; it has {has}")


class Planned:
    """What a run can do about its plan."""

    def plan(
        self: Running, steps: Sequence[Mapping[str, Any]], *, outside: str | None = None,
        ordered: bool = False, reads: bool = False, reason: str = "",
    ) -> None:  # fmt: skip
        """Say what this run is going to do; it holds until another plan replaces it.

        The same plan again, as when a run is resumed, goes on where it stands.

        Args:
            steps: dicts with `tool` (its name or the decorated function) and, if need be,
                `arguments` (what they do not name may be anything) and `repeat`.
            outside: what becomes of a call that is in no step: `ask` a person, `refuse` it, or
                `note` it in the record. The configuration's by default, else `ask`; of the two the
                stricter counts.
            ordered: a step may start once all steps before it have happened.
            reads: reads must be in the plan, too.
            reason: why it replaces another plan.

        Raises:
            ConfigurationError: it is no plan, or replaces another one without a reason.
        """
        new = _new(self, steps, outside, ordered=ordered, reads=reads, reason=reason)
        run_inline(_set(InlineRuntime(), self, new))

    async def aplan(
        self: Running, steps: Sequence[Mapping[str, Any]], *, outside: str | None = None,
        ordered: bool = False, reads: bool = False, reason: str = "",
    ) -> None:  # fmt: skip
        """Like `plan`, on an event loop."""
        new = _new(self, steps, outside, ordered=ordered, reads=reads, reason=reason)
        await _set(AsyncioRuntime(), self, new)

    def follow(self: Running, template: str | Template, /, **parameters: Any) -> None:
        """Keep to a template from now on: its steps, in their order, and nothing else.

        Args:
            template: its name in the configuration or in `Guard(templates=)`, or itself.
            parameters: the values of its parameters.

        Raises:
            ConfigurationError: there is no such template, or it has other parameters.
        """
        run_inline(_set(InlineRuntime(), self, _filled(self, template, parameters)))

    async def afollow(self: Running, template: str | Template, /, **parameters: Any) -> None:
        """Like `follow`, on an event loop."""
        await _set(AsyncioRuntime(), self, _filled(self, template, parameters))


def template_named(guard: Sheets, template: str | Template) -> Template:
    """Return a template of the guard by its name.

    Raises:
        ConfigurationError: there is none.
    """
    if not isinstance(template, str):
        return template
    found = guard.templates.get(template)
    if found is None:
        has = ", ".join(sorted(guard.templates)) or "none"
        raise ConfigurationError(f"there is no template {template!r}; there are: {has}")
    return found


def _filled(
    run: Running, template: str | Template, parameters: Mapping[str, Any]
) -> record.NewPlan:
    found = template_named(run.guard, template)
    return _new(
        run, found.fill(**parameters), "refuse", ordered=True, reads=False,
        reason=f"follows the template {found.name}", template=found.name,
    )  # fmt: skip


def _strict(said: str | None, configured: str | None) -> str:
    """Return the stricter word of code and configuration.

    Raises:
        ConfigurationError: the code's is none.
    """
    if said not in (None, *OUTSIDE):
        raise ConfigurationError(f"plan: outside is {', '.join(OUTSIDE)}; not {said!r}")
    words = [word for word in (said, configured) if word is not None]
    return max(words, key=OUTSIDE.index, default="ask")


def _new(
    run: Running, given: Iterable[Any], outside: str | None, *, ordered: bool, reads: bool, reason: str,
    template: str | None = None,
) -> record.NewPlan:  # fmt: skip
    if run.part == 0:
        raise ConfigurationError(f"run {run.id} is not entered yet: plan inside its `with` block")
    steps, sheets = steps_of(given, run.guard)
    data = {
        "steps": [_hashed(run, number, step) for number, step in enumerate(steps, 1)],
        "outside": _strict(outside, run.guard.settings.outside), "ordered": ordered,
        "reads": reads, "template": template,
    }  # fmt: skip
    pairs = zip(steps, sheets, strict=True)
    shown = [{"tool": step.tool, "arguments": _shown(run, step, sheet)} for step, sheet in pairs]
    return record.NewPlan(data, {"steps": shown}, run.redactor.scrub(reason))


def _hashed(run: Running, number: int, step: Step) -> dict[str, Any]:
    try:
        forms = {n: list(record.forms_of(run.hash_key, v)) for n, v in step.arguments.items()}
    except ContractViolation as error:
        raise ConfigurationError(f"plan, step {number}: {error.message}") from None
    return {"tool": step.tool, "arguments": forms, "repeat": step.repeat}


def _shown(run: Running, step: Step, sheet: Tool | None) -> dict[str, Any]:
    plain = {name: jsonable(value, name) for name, value in step.arguments.items()}
    hidden = run.redactor.hide(sheet.sensitive if sheet else frozenset(), plain)
    shown: dict[str, Any] = run.redactor.scrub(hidden)
    return shown


async def _set(runtime: Runtime, run: Running, new: record.NewPlan) -> None:
    taken = run.meter.drain()
    refusal, usage = await run.commit(
        runtime, taken, record.set_plan, run.ref, new, run.plans, taken
    )
    run.meter.synced(usage, taken)
    if refusal is not None:
        raise refusal
