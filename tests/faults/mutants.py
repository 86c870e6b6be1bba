"""Puts one of the seeded bugs into our own source and runs a module with it.

    AGENTGUARD_MUTANT="early reconcile" python -m tests.faults.mutants pytest tests/faults/…

The change is made while the source is imported: nothing is written, and a change whose place is
gone is an error, not a mutant that nobody catches. Without the variable nothing is changed.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from tests.beside.seeded_bugs import BESIDE_MUTANTS
from tests.conformance.seeded_bugs import ADAPTER_MUTANTS
from tests.faults.seeded_bugs import BELOW, CORE_MUTANTS, Mutant
from tests.faults.seeded_costs import COST_MUTANTS
from tests.faults.seeded_disks import DISK_MUTANTS
from tests.faults.seeded_endings import ENDING_MUTANTS
from tests.faults.seeded_levels import LEVEL_MUTANTS
from tests.faults.seeded_plans import PLAN_MUTANTS
from tests.faults.seeded_postgres import POSTGRES_MUTANTS
from tests.faults.seeded_routes import ROUTE_MUTANTS
from tests.faults.seeded_runaway import RUNAWAY_MUTANTS
from tests.faults.seeded_slos import SLO_MUTANTS
from tests.faults.seeded_stages import STAGE_MUTANTS
from tests.faults.seeded_telemetry import TELEMETRY_MUTANTS
from tests.faults.seeded_undos import UNDO_MUTANTS
from tests.faults.seeded_verification import VERIFICATION_MUTANTS
from tests.simulation.seeded_bugs import SIMULATION_MUTANTS
from tests.support import ROOT

VARIABLE, PLACES = "AGENTGUARD_MUTANT", "AGENTGUARD_PLACES"
MUTANTS: dict[str, Mutant] = {
    **CORE_MUTANTS, **DISK_MUTANTS, **POSTGRES_MUTANTS, **SIMULATION_MUTANTS,
    **ADAPTER_MUTANTS, **ENDING_MUTANTS, **UNDO_MUTANTS, **PLAN_MUTANTS, **STAGE_MUTANTS,
    **COST_MUTANTS, **VERIFICATION_MUTANTS, **RUNAWAY_MUTANTS, **BESIDE_MUTANTS, **LEVEL_MUTANTS,
    **ROUTE_MUTANTS, **SLO_MUTANTS, **TELEMETRY_MUTANTS,
}  # fmt: skip
ROOTS = [ROOT / folder for folder in ("src", "integrations")]
TESTS_FAILED = 1  # pytest's exit code
Ended = subprocess.CompletedProcess[str]


@cache
def sources() -> Mapping[Path, str]:
    """Read the package and the adapters."""
    return {path: path.read_text() for root in ROOTS for path in root.rglob("*.py")}


def place_of(old: str) -> Path:
    """Find the one file that contains *old*.

    Raises:
        LookupError: the code has changed, and the mutant must be written anew.
    """
    room, text = parted(old)
    among = {path: source for path, source in sources().items() if path.match(room or "*")}
    found = [path for path, source in among.items() if source.count(text) == 1]
    if len(found) != 1 or sum(source.count(text) for source in among.values()) != 1:
        raise LookupError(f"the mutant's place is found {len(found)} times: {old!r}")
    return found[0]


def parted(old: str) -> tuple[str, str]:
    """Return the file that *old* is looked for in, or nothing, and the text itself."""
    room, mark, text = old.partition(BELOW)
    return (room, text) if mark else ("", old)


class _Changed(SourceFileLoader):
    """Compiles a changed source, past the cache of compiled files."""

    def __init__(self, name: str, path: str, edits: Sequence[tuple[str, str]]) -> None:
        super().__init__(name, path)
        self._edits = edits

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source = Path(path).read_text()
        for old, new in self._edits:
            source = source.replace(parted(old)[1], new)
        code: CodeType = self.source_to_code(source, path)
        return code


class _Finder(MetaPathFinder):
    """Hands out the changed modules."""

    def __init__(self, mutant: Mutant) -> None:
        self._edits: dict[Path, list[tuple[str, str]]] = {}
        for old, new in mutant.edits:
            self._edits.setdefault(place_of(old), []).append((old, new))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module as always, and change it if the mutant is in it."""
        if not fullname.startswith("agentguard"):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        edits = self._edits.get(Path(spec.origin).resolve()) if spec and spec.origin else None
        if spec and spec.origin and edits:
            spec.loader = _Changed(fullname, spec.origin, edits)
        return spec


def install() -> None:
    """Put the mutant that the environment names into everything imported from now on."""
    name = os.environ.get(VARIABLE)
    if name:
        assert "agentguard" not in sys.modules, "the mutant comes too late"
        sys.meta_path.insert(0, _Finder(MUTANTS[name]))


def trial(name: str) -> Ended:
    """Run the test that is to catch a mutant with the mutant in it."""
    module = [sys.executable, "-m", "tests.faults.mutants", "pytest"]
    return subprocess.run(
        [*module, "-x", "-vv", "-p", "no:cacheprovider", f"tests/{MUTANTS[name].caught_by}"],
        cwd=ROOT,
        env={**os.environ, VARIABLE: name, PLACES: MUTANTS[name].places},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


def is_caught(name: str, ended: Ended) -> bool:
    """Tell whether the test has failed, and for the mutant's own reason."""
    said = ended.stdout
    says = MUTANTS[name].says
    told = any(words in said for words in ((says,) if isinstance(says, str) else says))
    return ended.returncode == TESTS_FAILED and "1 failed" in said and told


def main() -> None:
    """Run a module as `python -m` does, with the mutant in it."""
    install()
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
