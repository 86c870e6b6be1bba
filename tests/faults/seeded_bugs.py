"""The seeded bugs: each a small wrong change to the core, and the test that must catch it."""

from __future__ import annotations

from dataclasses import dataclass

Edit = tuple[str, str]
BELOW = "\0"
"""Between the name of a file and the text in it, where other files have the same text."""
SQLITE = f"stores/sqlite.py{BELOW}"


@dataclass(frozen=True)
class Mutant:
    """A bug, the test that must fail because of it, and what it says then.

    Attributes:
        caught_by: the node id of that test, or of a group of them, below tests/.
        says: a part of the failure's words, so that a crash is not taken for a catch; several, if
            chance decides which of them it is.
        edits: old text, found once in the whole package, and what it becomes.
        places: kill only where the place's name has this word in it; the others take time.
    """

    caught_by: str
    says: str | tuple[str, ...]
    edits: tuple[Edit, ...]
    places: str = ""


def bug(caught_by: str, says: str | tuple[str, ...], *edits: Edit, places: str = "") -> Mutant:
    """Declare a seeded bug."""
    return Mutant(caught_by, says, edits, places)


def change(old: str, *new: str) -> Edit:
    """Replace *old* by these lines."""
    return old, "\n".join(new)


KILLS = "faults/test_kills.py::test_a_worker_killed_anywhere_leaves_nothing_twice_and_nothing_lost"
CANCELLED = (
    "faults/test_cancellation.py::test_a_call_cancelled_anywhere_is_never_repeated_in_silence"
)
INTERRUPTS = (
    "faults/test_interrupts.py::"
    "test_a_worker_interrupted_anywhere_leaves_nothing_twice_and_no_call_stuck"
)
MATRIX = "faults/test_matrix.py::test_a_fault_leaves_nothing_twice_lost_stuck_or_untold"
OWNERSHIP, PROMISES = "faults/test_ownership.py::test_", "faults/test_promises.py::test_"
APART = "_connection.execute('COMMIT'); {0}._connection.execute('BEGIN IMMEDIATE')"

CORE_MUTANTS: dict[str, Mutant] = {
    # Those of the reliability notes.
    "no fence in settle": bug(
        f"{OWNERSHIP}a_late_answer_is_evidence_and_never_truth",
        "somebody ruled on it",
        change("row.fence != end.fence or row.state not in _OPEN", "row.state not in _OPEN"),
    ),
    "take-over when the lease is over": bug(
        f"{OWNERSHIP}a_paused_process_is_not_dead",
        "'success'",
        change(
            "        return owner != self.id and self._probe(tx, owner) is True",
            "        row = tx.row('SELECT started_at FROM owners WHERE owner = ?', (owner,))",
            "        return owner != self.id and tx.now > row[0] + 60_000_000",
        ),
    ),
    "early reconcile": bug(
        f"{OWNERSHIP}no_hook_is_believed_while_the_body_may_still_act",
        "DID NOT RAISE",
        change("if lease is None or tx.now >= lease:", "if True:"),
    ),
    "no payload check": bug(
        f"{PROMISES}one_key_with_another_payload_never_runs",
        "DID NOT RAISE",
        change("if row.payload_hash == intent.payload_hash:", "if True:"),
    ),
    "commit after the body": bug(
        f"{KILLS}[plain, sync, no hook]",
        "duplicate: T-1",
        change(
            '        connection.execute("BEGIN IMMEDIATE")\n        self._commits',
            "        if not connection.in_transaction:",
            '            connection.execute("BEGIN IMMEDIATE")',
            "        self._commits",
        ),
        change(
            "        self.end(connection, tx)\n",
            '        if batch[0].verb.__name__ != "begin":',
            "            self.end(connection, tx)\n",
        ),
        places="effect done",
    ),
    "approval and start in two transactions": bug(
        f"{KILLS}[approved, sync, hook]",
        "was used and started nothing",
        change(
            "        approvals.use(tx, log, approval, step)\n",
            "        approvals.use(tx, log, approval, step); log.save()",
            f"        tx.{APART.format('tx')}\n",
        ),
        places="start:",
    ),
    "synchronous=NORMAL": bug(
        f"{PROMISES}commits_are_synced_before_anybody_is_answered",
        "(1, 'wal')",
        change('synchronous = FULL"', 'synchronous = NORMAL"'),
    ),
    "a warning at COMMIT is ignored": bug(
        "stores/test_postgres.py::test_a_commit_that_no_standby_confirmed_is_uncertain",
        "assert isinstance(failure, StoreUnavailable)",
        change('if notice.error_field(_SEVERITY) == b"WARNING":', "if False:"),
    ),
    "leases by the local clock": bug(
        "faults/test_clocks.py::test_a_host_whose_clock_is_ahead_takes_nobody_for_lost",
        "'effect_in_doubt'",
        change(
            "        if not self._given:\n            return None\n",
            "        if not self._given:",
            "            import time",
            "            return time.time_ns() // 1000\n",
        ),
    ),
    "delete on exception": bug(
        f"{PROMISES}an_error_that_tells_nothing_leaves_a_doubt",
        "the reply was lost",
        change("return _doubtful(call, doubt, reason, error)", "return _no_effect(failure, error)"),
    ),
    "approvals counted by vote": bug(
        f"{PROMISES}a_person_counts_once_whatever_they_call_themselves",
        "DID NOT RAISE",
        change("if any(same_person(d.person) == person for d in approval.decisions):", "if False:"),
    ),
    "chain in a transaction of its own": bug(
        f"{KILLS}[plain, sync, no hook]",
        "is missing",
        change(
            "        self.head_seq = seq\n        self._tx.run(",
            "        self.head_seq = seq; self.save()",
            f"        self._tx.{APART.format('self._tx')}",
            "        self._tx.run(",
        ),
        places="start:",
    ),
    # Those of the record and of its versions.
    "a migration commits as it goes": bug(
        f"{MATRIX}[F19 sqlite]",
        "lost: ",
        change(
            '    connection.execute("BEGIN IMMEDIATE")\n    try:\n        version =',
            "    try:",
            "        version =",
        ),
        change(
            'VERSION}")\n        connection.execute("COMMIT")',
            'VERSION}")',
        ),
    ),
    "a store is migrated under its workers": bug(
        f"{MATRIX}[F19 sqlite]",
        "it was migrated under a worker",
        change("if version < VERSION and (working :=", "if False and (working :="),
    ),
    "an anchored head is not compared": bug(
        f"{MATRIX}[F22 sqlite]",
        "not seen",
        change("        elif now.root != anchor.root:", "        elif False:"),
    ),
    # Those of the budgets and of replays.
    "budget checked before the transaction": bug(
        "faults/test_crowds.py::test_two_hundred_tasks_never_spend_more_than_their_run_has",
        "'paid': 200",
        change("full = None if held else _no_room(tx, log, intent, step)", "full = None"),
        change(
            "            answer, usage = await self.run_.commit(",
            "            look = lambda tx: effects._no_room(",
            "                tx, effects.RunLog(tx, self.run_.ref), intent, intent.step)",
            "            if full := self.store.read(look):",
            "                raise full",
            "            await self.runtime.sleep(0)  # long enough for everybody else",
            "            answer, usage = await self.run_.commit(",
        ),
    ),
    "falsy results count as none": bug(
        f"{PROMISES}a_falsy_result_replays_as_itself",
        "['T-1', 'T-1', 'T-1']",
        change("if known and known.state in effects.FINAL and", "if False and"),
        change(
            "def _from_final(_tx: Tx, _log: RunLog, _intent: Intent, row: EffectRow) -> Answer:\n",
            "def _from_final(_tx: Tx, _log: RunLog, _intent: Intent, row: EffectRow) -> Answer:",
            "    if not __import__('json').loads(row.result[1:]):",
            "        return _start(_tx, _log, _intent, row, None)\n",
        ),
    ),
    "an approval can be used again": bug(
        "faults/test_crowds.py::test_eight_callers_of_one_approval_start_it_once",
        "and was used 1 times",
        change('approval.id, status="used", used_at=tx.now)', "approval.id, used_at=tx.now)"),
    ),
    # Those that these tests have found in the core.
    "a fork inherits the owner's lock": bug(
        f"{OWNERSHIP}a_killed_parents_effect_is_in_doubt_while_its_child_lives",
        "stuck: T-1 is executing",
        change(
            f"{SQLITE}            self._owner_.drop()\n        self._reset()",
            "            pass",
            "        self._reset()",
        ),
    ),
    "a first call loads what it needs": bug(
        f"{OWNERSHIP}a_first_call_loads_nothing",
        "pydantic",
        change('"record": make_dataclass("Record", [("text", str)]), ', ""),
    ),
    "a fork inherits SQLite's locks": bug(
        f"{OWNERSHIP}a_fork_keeps_its_record_when_everybody_else_has_closed",
        ("duplicate: T-3 happened 2 times", "were acknowledged"),
        change(
            "        if not self.memory:\n            self._disconnect()",
            "        _STORES_LEAK = self._connection, self._reader",
        ),
    ),
    "the store's file is opened beside SQLite": bug(
        f"{OWNERSHIP}a_store_may_be_opened_twice_in_one_process",
        "were acknowledged",
        change(
            "            elif not os.access(path, os.R_OK | os.W_OK, effective_ids=True):\n",
            "            else:",
            "                os.close(os.open(path, os.O_RDWR))",
            "            if False:\n",
        ),
    ),
    "a closed store gives up its lock": bug(
        f"{OWNERSHIP}a_guard_closed_during_a_body_does_not_count_as_dead",
        "'T-1': 2",
        change(
            "if not self._has_open_effects():\n                    self._owner.leave(self._writing())",
            "self._owner.drop()",
        ),
    ),
    "looking takes the lock for itself": bug(
        f"{OWNERSHIP}looking_whether_an_owner_lives_does_not_keep_it_alive",
        "0 == 1",
        change("fcntl.LOCK_SH | fcntl.LOCK_NB", "fcntl.LOCK_EX | fcntl.LOCK_NB"),
    ),
    "a dead owner's lock file goes before the commit": bug(
        f"{KILLS}[plain, sync, hook, after effect done]",
        "stuck: T-1",
        change(
            f"stores/_sqlite_tx.py{BELOW}self.after_commit(lambda: self._owner.forget(owner))",
            "self._owner.forget(owner)",
        ),
        places="sweep:",
    ),
    "a commit is given up when its caller is cancelled": bug(
        CANCELLED,
        "stuck: ",
        change(
            "                self._cancelled = cancelled\n", "                raise cancelled\n"
        ),
        change("            self.claim.abandon()\n", "            pass\n"),
    ),
    "a cancellation is forgotten": bug(
        CANCELLED,
        "a cancellation was swallowed",
        change(
            "= await guarded(runtime, run, tool, wrapped, instance, args, kwargs)\n"
            "    runtime.check_cancelled()\n",
            "= await guarded(runtime, run, tool, wrapped, instance, args, kwargs)\n",
        ),
    ),
    "who is interrupted says nothing": bug(
        f"{INTERRUPTS}[plain, sync, no hook]",
        "stuck: ",
        change("            self.claim.abandon()\n", "            pass\n"),
        places="COMMIT",
    ),
    "who is interrupted was never there": bug(
        f"{INTERRUPTS}[plain, sync, no hook]",
        "duplicate: T-1",
        change("            self.claim.began = True\n", "            pass\n"),
        places="after the attempt",
    ),
    "an interrupted commit counts as failed": bug(
        f"{INTERRUPTS}[plain, sync, no hook]",
        "reads, ",
        change("            if taken.written:\n", "            if False:\n"),
        places="COMMIT",
    ),
    "a repeat that did not begin ends a doubt": bug(
        "faults/test_cancellation.py::test_a_cancelled_repeat_under_the_same_key_leaves_its_doubt",
        "failed_retryable",
        change('return self._call.tool.on_doubt == "retry_same_key"', "return False"),
    ),
    "a closed loop ends the writer": bug(
        f"{OWNERSHIP}a_closed_event_loop_does_not_stop_the_next_one",
        "Event loop is closed",
        change("with contextlib.suppress(RuntimeError):  # a closed", "if True:  # a closed"),
    ),
}
