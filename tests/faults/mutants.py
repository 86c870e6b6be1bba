"""Seeded bugs: small wrong changes to our own source, each of which some test must catch.

    AGENTGUARD_MUTANT="early reconcile" python -m tests.faults.mutants pytest tests/faults/…

runs a module with one of them in it. The change is made while the source is imported: nothing is
written, and a change whose place is gone is an error, not a mutant that nobody catches.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

VARIABLE = "AGENTGUARD_MUTANT"
PACKAGE = Path(__file__).resolve().parents[2] / "src" / "agentguard"


@dataclass(frozen=True)
class Mutant:
    """A bug, the test that must fail because of it, and what it says then.

    Attributes:
        edits: old text, found once in the whole package, and what it becomes.
        caught_by: the node id of that test, or of a group of them, below tests/faults.
        says: a part of the failure's words, so that a crash is not taken for a catch.
    """

    edits: tuple[tuple[str, str], ...]
    caught_by: str
    says: str


@cache
def sources() -> Mapping[Path, str]:
    """Read the whole package."""
    return {path: path.read_text() for path in PACKAGE.rglob("*.py")}


def place_of(old: str) -> Path:
    """Find the one file that contains *old*.

    Raises:
        LookupError: the code has changed, and the mutant must be written anew.
    """
    found = [path for path, source in sources().items() if source.count(old) == 1]
    if len(found) != 1 or sum(source.count(old) for source in sources().values()) != 1:
        raise LookupError(f"the mutant's place is found {len(found)} times: {old!r}")
    return found[0]


class _Changed(SourceFileLoader):
    """Compiles a changed source, past the cache of compiled files."""

    def __init__(self, name: str, path: str, edits: Sequence[tuple[str, str]]) -> None:
        super().__init__(name, path)
        self._edits = edits

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source = Path(path).read_text()
        for old, new in self._edits:
            source = source.replace(old, new)
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
        if fullname.partition(".")[0] != "agentguard":
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


COMMIT = 'connection.execute("COMMIT"); connection.execute("BEGIN IMMEDIATE")'
KILLS = "test_kills.py::test_a_worker_killed_anywhere_leaves_nothing_twice_and_nothing_lost"
CANCELLED = "test_cancellation.py::test_a_call_cancelled_anywhere_is_never_repeated_in_silence"

MUTANTS: dict[str, Mutant] = {
    "no fence in settle": Mutant(
        ((f"{{_HELD}} AND fence = ? AND state IN", "{_HELD} AND ? > 0 AND state IN"),),
        "test_ownership.py::test_a_late_answer_is_evidence_and_never_truth",
        "somebody ruled on it",
    ),
    "take-over when the lease is over": Mutant(
        (
            (
                "return owner != self.id and self._probe(tx, owner) is True",
                "return owner != self.id and tx.now > 60_000_000 + tx.row("
                "'SELECT started_at FROM owners WHERE owner = ?', (owner,))[0]",
            ),
        ),
        "test_ownership.py::test_a_paused_process_is_not_dead",
        "'success'",
    ),
    "early reconcile": Mutant(
        (("if lease is None or tx.now >= lease:", "if True:"),),
        "test_ownership.py::test_no_hook_is_believed_while_the_body_may_still_act",
        "DID NOT RAISE",
    ),
    "no payload check": Mutant(
        (("if row.payload_hash == intent.payload_hash:", "if True:"),),
        "test_promises.py::test_one_key_with_another_payload_never_runs",
        "DID NOT RAISE",
    ),
    "commit after the body": Mutant(
        (
            (
                'connection.execute("BEGIN IMMEDIATE")\n        self._commits',
                'connection.in_transaction or connection.execute("BEGIN IMMEDIATE")\n'
                "        self._commits",
            ),
            (
                'connection.execute("COMMIT")\n        self._owner.registered',
                'batch[0].verb.__name__ == "begin" or connection.execute("COMMIT")\n'
                "        self._owner.registered",
            ),
        ),
        f"{KILLS}[plain, sync, no hook]",
        "duplicate: T-1",
    ),
    "approval and start in two transactions": Mutant(
        (
            (
                "approvals.use(tx, log, approval, step)\n",
                f"approvals.use(tx, log, approval, step); log.save(); tx._{COMMIT.replace('; ', '; tx._')}\n",
            ),
        ),
        f"{KILLS}[approved, sync, hook]",
        "was used and started nothing",
    ),
    "synchronous=NORMAL": Mutant(
        (("synchronous = FULL\"", "synchronous = NORMAL\""),),
        "test_promises.py::test_commits_are_synced_before_anybody_is_answered",
        "(1, 'wal')",
    ),
    "delete on exception": Mutant(
        (
            (
                "return _doubtful(call, doubt, reason, error)",
                "return _no_effect(failure, error)",
            ),
        ),
        "test_promises.py::test_an_error_that_tells_nothing_leaves_a_doubt",
        "the reply was lost",
    ),
    "approvals counted by vote": Mutant(
        (("if any(_same(d.person) == person for d in approval.decisions):", "if False:"),),
        "test_promises.py::test_a_person_counts_once_whatever_they_call_themselves",
        "DID NOT RAISE",
    ),
    "chain in a transaction of its own": Mutant(
        (
            (
                "self.head_seq = seq\n        self._tx.run(",
                f"self.head_seq = seq; self.save(); self._tx._{COMMIT.replace('; ', '; self._tx._')}\n"
                "        self._tx.run(",
            ),
        ),
        f"{KILLS}[plain, sync, no hook]",
        "events on record",
    ),
    "budget checked before the transaction": Mutant(
        (
            ("full = None if held else _no_room(tx, log, intent, step)", "full = None"),
            (
                "answer, usage = await self.run_.commit(",
                "full = self.store.read(lambda tx: effects._no_room(\n"
                "                tx, effects.RunLog(tx, self.run_.ref), intent, intent.step))\n"
                "            if full is not None: raise full\n"
                "            answer, usage = await self.run_.commit(",
            ),
        ),
        "test_crowds.py::test_thirty_two_threads_never_spend_more_than_their_run_has",
        "== 33",
    ),
    "falsy results count as none": Mutant(
        (
            ("if known and known.state in effects.FINAL and", "if False and"),
            (
                "def _from_final(_tx: Tx, _log: RunLog, _intent: Intent, row: Effect) -> Answer:\n",
                "def _from_final(_tx: Tx, _log: RunLog, _intent: Intent, row: Effect) -> Answer:\n"
                "    if not json.loads(row.result[1:]): return _start(_tx, _log, _intent, row, None)\n",
            ),
        ),
        "test_promises.py::test_a_falsy_result_replays_as_itself",
        "['T-1', 'T-1', 'T-1']",
    ),
    "a fork inherits the owner's lock": Mutant(
        (("            self._owner_.drop()\n        self._reset()", "            pass\n        self._reset()"),),
        "test_ownership.py::test_a_killed_parents_effect_is_in_doubt_while_its_child_lives",
        "stuck: T-1 is executing",
    ),
    "a fork inherits SQLite's locks": Mutant(
        (("        if not self.memory:\n            self._disconnect()", "        _LEAKED = self._connection, self._reader"),),
        "test_ownership.py::test_a_fork_keeps_its_record_when_everybody_else_has_closed",
        "'T-3': 2",
    ),
    "the store's file is opened beside SQLite": Mutant(
        (
            (
                "            elif not os.access(path, os.R_OK | os.W_OK, effective_ids=True):\n",
                "            else: os.close(os.open(path, os.O_RDWR))\n            if False:\n",
            ),
        ),
        "test_ownership.py::test_a_store_may_be_opened_twice_in_one_process",
        "disk I/O error",
    ),
    "a closed store gives up its lock": Mutant(
        (
            (
                "if not self._has_open_effects():\n                    self._owner.close()",
                "self._owner.drop()",
            ),
        ),
        "test_ownership.py::test_a_guard_closed_during_a_body_does_not_count_as_dead",
        "'T-1': 2",
    ),
    "looking takes the lock for itself": Mutant(
        (("fcntl.LOCK_SH | fcntl.LOCK_NB", "fcntl.LOCK_EX | fcntl.LOCK_NB"),),
        "test_ownership.py::test_looking_whether_an_owner_lives_does_not_keep_it_alive",
        "0 == 1",
    ),
    "a dead owner's lock file goes before the commit": Mutant(
        (
            (
                "self.forgotten.append(owner)",
                "self._owner.forget(owner)",
            ),
        ),
        f"{KILLS}[plain, sync, hook, after effect done]",
        "stuck: T-1",
    ),
    "a commit is given up when its caller is cancelled": Mutant(
        (("                self._cancelled = cancelled\n", "                raise cancelled\n"),),
        CANCELLED,
        "stuck: ",
    ),
    "a cancellation is forgotten": Mutant(
        (("    runtime.check_cancelled()\n    if error is not None", "    if error is not None"),),
        CANCELLED,
        "a cancellation was swallowed",
    ),
    "a closed loop ends the writer": Mutant(
        (("with contextlib.suppress(RuntimeError):  # a closed loop", "if True:  # a closed loop"),),
        "test_ownership.py::test_a_closed_event_loop_does_not_stop_the_next_one",
        "Event loop is closed",
    ),
    "an approval can be used again": Mutant(
        (("UPDATE approvals SET status = 'used', used_at = ?", "UPDATE approvals SET used_at = ?"),),
        "test_crowds.py::test_eight_callers_of_one_approval_start_it_once",
        "and was used 1 times",
    ),
}


def main() -> None:
    """Run a module as `python -m` does, with the mutant in it."""
    install()
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
