"""Serve plays on standard input: import a runtime once, fork for each line, answer its exit code."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from .stage import Stage


def _serve(module: str) -> None:
    importlib.import_module(module)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a runtime prints is no answer
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _play_and_exit(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


def _play_and_exit(line: str) -> None:
    code = 1
    try:
        told = json.loads(line)
        module, _, name = told["runtime"].partition(":")
        runtime = getattr(importlib.import_module(module), name)
        stage = Stage(runtime, told["colour"], Path(told["folder"]))
        outcome = stage.play(**told["options"])
        error = outcome.error and f"{type(outcome.error).__name__}: {outcome.error}"
        seen = dataclasses.asdict(dataclasses.replace(outcome, error=None))
        (stage.folder / "outcome.json").write_text(json.dumps({**seen, "error": error}))
        stage.guard.close()
        code = 0
    except BaseException:  # noqa: BLE001 - a fork ends here, whatever happens
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
