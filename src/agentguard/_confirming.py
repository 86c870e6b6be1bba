"""The end of a run as a whole is confirmed before the run counts as a success."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ._independence import disguised, learn, proposers_of
from ._runtime import AsyncioRuntime
from ._verdicts import Asking, Verdicts, ask_all, check_of, in_order, least
from .errors import ConfigurationError, VerificationFailed, VerifierUnavailable
from .ledger import queries
from .ledger.values import Draft
from .model import EffectState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ._meter import Meter
    from ._models import ModelCalls, Surroundings
    from ._runtime import Runtime
    from ._verdicts import Check
    from .model import Principal
    from .redaction import Redactor

_ALL = 100_000


class Running(Protocol):
    """What a verification needs from a run."""

    guard: Any
    id: str
    checks: tuple[Check, ...]
    around: Surroundings
    principal: Principal
    models: ModelCalls
    meter: Meter
    redactor: Redactor
    verdicts: Sequence[Mapping[str, Any]]

    async def flush(self, runtime: Runtime) -> None:
        """Write the events that wait."""
        ...


class Verified:
    """What a run can do about being verified as a whole."""

    checks: tuple[Check, ...] = ()
    verdicts: Sequence[Mapping[str, Any]] = ()

    def verify_with(
        self: Running, *checks: Callable[..., Any], by: str | None = None,
        minimum_confidence: Any = None, timeout: float | None = None,
    ) -> None:  # fmt: skip
        """Let verifiers confirm the run once it ends without an error; a no makes it failed.

        Args:
            checks: each is called with `(run, effects)`, as operators see them, and answers as a
                tool's verifier does.
            by: names the verifier in the record.
            minimum_confidence: from 0 to 1; a yes that is less sure counts as a no.
            timeout: seconds that each may take.

        Raises:
            ConfigurationError: a verifier is the model that proposes the run's calls.
        """
        minimum = least(minimum_confidence)
        found = [check_of(check, by=by, minimum=minimum, timeout=timeout) for check in checks]
        known = proposers_of(self)
        sentence = disguised(found, known, f"run {self.id}")
        if sentence is not None:
            raise ConfigurationError(sentence)
        self.checks = tuple(in_order([*self.checks, *found]))


async def refuted(runtime: Runtime, run: Running) -> VerificationFailed | None:
    """Ask the run's verifiers, and return what their no comes to; None for a yes.

    The verdicts are written with the run's end. A run that waits for people has not ended.
    """
    await run.flush(runtime)
    store, tenant = run.around.store, run.principal.tenant
    [info] = [i for i in await runtime.look(store, queries.run, tenant, run.id) if i.id == run.id]
    effects = await runtime.look(store, queries.effects, tenant, None, run.id, _ALL)
    if any(effect.state is EffectState.AWAITING_APPROVAL for effect in effects):
        return None
    found = await _asked(runtime, run, (info, effects))
    run.verdicts = found.told
    for told in run.redactor.scrub(found.told):
        fact = {name: value for name, value in told.items() if name != "diff"}
        diff = told.get("diff")
        run.meter.note(Draft("verified", fact, None, None if diff is None else {"diff": diff}))
    if found.refuted is not None:
        found.refuted.run_id = run.id
    return found.refuted


async def _asked(runtime: Runtime, run: Running, given: tuple[Any, Any]) -> Verdicts:
    """Ask the verifiers; one that turned out to be the proposer has no say."""
    what, on_loop = f"run {run.id}", isinstance(runtime, AsyncioRuntime)
    await learn(runtime, run)
    known = proposers_of(run)
    sentence = disguised(run.checks, known, what)
    if sentence is None and not on_loop and any(check.is_async for check in run.checks):
        sentence = f"{what}: an async verifier needs the run to be entered with `async with`"
    if sentence is not None:
        return Verdicts([], VerifierUnavailable(sentence))
    asking = Asking("", known, scrub=run.redactor.scrub)
    return await ask_all(run.checks, what, given, asking=asking, on_loop=on_loop)
