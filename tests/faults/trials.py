"""Makes a trial in a process of its own, so that one that hangs or dies takes nothing along.

python -m tests.faults.trials F5 sqlite short 1
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

from tests.faults.forms import SAID
from tests.faults.matrix import Missing, NotHere, Result, Row, as_json, row_of, trial_of
from tests.support import ROOT

PATIENCE = {"short": 900, "long": 10_800}
"""Seconds after which a trial counts as hanging."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended: with a result, or with the words why there is none."""

    row: Row
    status: str  # passed, found, missing, skipped, failed
    result: Result | None = None
    words: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether the matrix fails because of it; what a machine cannot do is told and no more."""
        return self.status not in ("passed", "skipped")


def make(row: Row, *, long: bool, seed: int) -> Outcome:
    """Make one trial in a fresh process, and end it with all its children."""
    form = "long" if long else "short"
    words = [
        sys.executable,
        "-m",
        "tests.faults.mutants",
        "tests.faults.trials",
        row.fault,
        row.store,
        form,
        str(seed),
    ]
    trial = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, complaints = trial.communicate(timeout=PATIENCE[form])
    except subprocess.TimeoutExpired:
        said, complaints = "", f"it had not ended after {PATIENCE[form]} s"
    finally:
        with suppress(ProcessLookupError):  # nobody of the group is left
            os.killpg(trial.pid, signal.SIGKILL)
        trial.wait()
    return outcome(row, said, complaints)


def outcome(row: Row, said: str, complaints: str) -> Outcome:
    """Read the last line of what a trial said."""
    try:
        answer = json.loads(said.rstrip().rpartition("\n")[2])
    except ValueError:
        return Outcome(row, "failed", words=complaints.strip() or said.strip())
    if "points" not in answer:
        return Outcome(row, answer["status"], words=answer["words"])
    result = Result(**{**answer, "words": tuple(answer["words"])})
    return Outcome(row, "passed" if result.is_clean else "found", result, "\n".join(result.words))


def main(fault: str, store: str, form: str, seed: str) -> None:
    """Be the process of one trial."""
    began = time.monotonic()
    if form == "long":  # before any story is imported
        os.environ[SAID] = "1"
    try:
        result = trial_of(row_of(fault, store))(form == "long", int(seed))
        answer = {**as_json(result), "seconds": round(time.monotonic() - began, 1)}
    except Missing as missing:
        answer = {"status": "missing", "words": str(missing)}
    except NotHere as reason:
        answer = {"status": "skipped", "words": str(reason)}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
