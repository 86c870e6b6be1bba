"""The seeded bugs of the SQLite store that only broken disks, power cuts and flipped bits show."""

from __future__ import annotations

from tests.faults.seeded_bugs import Mutant, bug, change

MATRIX = "faults/test_matrix.py::test_a_fault_leaves_nothing_twice_lost_stuck_or_untold"

DISK_MUTANTS: dict[str, Mutant] = {
    "synchronous=NORMAL, power cut": bug(
        f"{MATRIX}[F5 sqlite]",
        "lost: T-",
        change('synchronous = FULL"', 'synchronous = NORMAL"'),
        places="nothing kept",
    ),
    "synchronous=OFF, power cut": bug(
        f"{MATRIX}[F5 sqlite]",
        "lost: T-",
        change('synchronous = FULL"', 'synchronous = OFF"'),
        places="nothing kept",
    ),
    "a new start of the machine proves nothing": bug(
        f"{MATRIX}[F5 sqlite]",
        "stuck: ",
        change(
            "        return True if row and row[0] not in (None, self._boot) else None",
            "        return None",
        ),
        places="all kept",
    ),
    "a commit that failed counts as made": bug(
        f"{MATRIX}[F4 sqlite]",
        "lost: T-1",
        change(
            '            connection.execute("COMMIT")\n            self._owner.committed',
            "            with contextlib.suppress(sqlite3.Error):",
            '                connection.execute("COMMIT")',
            "            self.rollback()",
            "            self._owner.committed",
        ),
        places="fdatasync",
    ),
    "answered before the commit": bug(
        f"{MATRIX}[F2 sqlite]",
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
        places="pwrite64 6",
    ),
    "seal not checked": bug(
        f"{MATRIX}[F17 sqlite]",
        "wrong: told pay",
        change("    if sealed is None or seal(*values) != bytes(sealed):", "    if False:"),
        places="aimed at paid",
    ),
    "a key that is not found is free": bug(
        f"{MATRIX}[F17 sqlite]",
        "duplicate: T-",
        change("        rows.check_free(tx, tenant, intent.key)\n", ""),
        places="aimed at ag1_",
    ),
    "lost commits are not missed": bug(
        f"{MATRIX}[F17 sqlite]",
        "duplicate: T-",
        change("        if there < acknowledged:\n", "        if False:\n"),
        places="old copy",
    ),
}
