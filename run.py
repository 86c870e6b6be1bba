#!/usr/bin/env python3
"""The one door to this checkout: `python3 run.py VERB [arguments]`; without a verb it lists them.

Needs Python 3.11+ and nothing else. The first run builds `.venv` from a hash-checked lock file;
later runs see by the lock's hash that nothing has changed, and start at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / "installed.json"
LINTERS = ("ruff check", "ruff format --check", "mypy", "pyright")
LOCKS = {  # test first: the others keep to its versions, so that all of them fit into one .venv
    "test": "pyproject.toml --all-extras --group dev --group build"
    " --no-emit-package pybars4 --no-emit-package pymeta3",
    "sources": "requirements/sources.in --no-deps",  # of Semantic Kernel; they come without wheels
    "demo": "pyproject.toml --extra langgraph --group build --group demo -c requirements/test.lock",
    "bench": "pyproject.toml --extra langgraph --extra otel --extra jsonschema --extra postgres"
    " --extra semantic-kernel --extra llamaindex --no-emit-package pybars4 --no-emit-package pymeta3"
    " --group build --group bench -c requirements/test.lock",
    "bfcl": "requirements/bfcl.in --no-deps",  # its requirements are huge, and tests need none
    "phoenix": "requirements/phoenix.in",  # a backend, in an environment of its own
    "tools": "requirements/tools.in",
}
COMPILE = (
    "pip compile --universal --python-version 3.11 -c requirements/constraints.txt --quiet"
    " --generate-hashes --no-header --no-annotate --no-emit-index-url"
)
# A lock is complete, so with --no-deps nothing is resolved and nothing unlisted can slip in.
# Most of what is installed is never imported: what is, is compiled then.
PIP = "-m pip install --no-deps --no-compile --disable-pip-version-check --require-virtualenv"
FROM_LOCK = "--only-binary=:all: --require-hashes -r"
FROM_SOURCES = "--no-binary=:all: --no-build-isolation --require-hashes -r"
FROM_CHECKOUT = "--no-index --no-build-isolation -e"


def demo(arguments: list[str]) -> int:
    """Show a killed, resumed, approved and budgeted run beside the same run without agentguard."""
    prepare("demo")
    return python("-m", "agentguard", "demo", *arguments)


def test(arguments: list[str]) -> int:
    """Lint, then test on all cores; --no-lint leaves out the first, all else goes to pytest."""
    prepare("test", "sources", "bfcl")
    linted = 0 if "--no-lint" in arguments else lint([])
    rest = [word for word in arguments if word != "--no-lint"]
    return python("-m", "pytest", *side_by_side(), "--durations=20", *rest) or linted


def lint(_: list[str]) -> int:
    """Run ruff, mypy and pyright side by side; show what the failing ones say."""
    prepare("test", "sources", "bfcl")
    started = [(name, popen(BIN / name.split()[0], *name.split()[1:])) for name in LINTERS]
    return max([ended(name, linter) for name, linter in started])


def docs(arguments: list[str]) -> int:
    """Run every code block of the README and of docs/."""
    prepare("test", "sources", "bfcl")
    return python("-m", "pytest", "README.md", "docs", "tests/test_docs.py", *arguments)


def conformance(arguments: list[str]) -> int:
    """Show which behaviour each runtime has: one table, every cell a test that ran."""
    prepare("test", "sources")
    table = ("-q", "--no-header", "-rN", "-p", "agentguard.testing.table")
    return python("-m", "pytest", "tests/conformance", *side_by_side(), *table, *arguments)


def faults(arguments: list[str]) -> int:
    """Kill, cut off, fill up, slow down and tamper; show what came of it. --long: everywhere."""
    prepare("test", "sources", "bfcl")
    return python("-m", "tests.faults", *arguments)


def bench(arguments: list[str]) -> int:
    """Measure guarded calls beside their floors and their peers."""
    prepare("bench", "sources", "bfcl")
    return python("-m", "benchmarks", *arguments)


def fresh(arguments: list[str]) -> int:
    """Install every extra alone under every Python there is, and make one call; for the night."""
    return subprocess.call([sys.executable, "-m", "tests.fresh", *arguments], cwd=ROOT)


def phoenix(arguments: list[str]) -> int:
    """Show the demo run on each runtime to Arize Phoenix and read it back; for the night."""
    prepare("test", "sources")
    return python("-m", "tests.phoenix", *arguments)


def lock(arguments: list[str]) -> int:
    """Make the lock files again; --upgrade moves to newer versions."""
    prepare("tools")
    for name, what in LOCKS.items():
        say(f"locking requirements/{name}.lock")
        words = [*COMPILE.split(), *what.split(), "-o", f"requirements/{name}.lock", *arguments]
        if code := subprocess.call([BIN / "uv", *words], cwd=ROOT):
            return code
    return 0


def prepare(*locks: str) -> None:
    """Bring `.venv` up to date with *locks* and the checkout."""
    built_by = f"Python {sys.version_info[0]}.{sys.version_info[1]} in {ROOT}"
    installed = json.loads(STAMP.read_text()) if STAMP.exists() and PYTHON.exists() else {}
    if installed.get("built by") != built_by:
        create_venv()
        installed = {"built by": built_by}
    for name in locks:
        how = FROM_SOURCES if name == "sources" else FROM_LOCK
        install(installed, name, ROOT / "requirements" / f"{name}.lock", how)
    if "tools" not in locks:  # uv alone cannot build the checkout, and does not need it
        install(installed, "agentguard", ROOT / "pyproject.toml", FROM_CHECKOUT)


def create_venv() -> None:
    """Start `.venv` afresh, also after one that another Python or another place had built."""
    try:
        import ensurepip  # noqa: F401 - Debian splits it off, and venv's own complaint is long
    except ImportError:
        sys.exit("This Python makes no virtual environments yet: sudo apt install python3-venv")
    say(f"creating .venv with Python {sys.version.split()[0]}")
    shutil.rmtree(VENV, ignore_errors=True)
    venv.create(VENV, with_pip=True, symlinks=os.name != "nt")


def install(installed: dict[str, str], name: str, source: Path, options: str) -> None:
    """Install *source* unless it is installed with the very same bytes; remember its hash."""
    wanted = hashlib.sha256(source.read_bytes()).hexdigest()
    if installed.get(name) == wanted:
        return
    is_lock = source.suffix == ".lock"
    total = source.read_text().count("==") if is_lock else 1
    pip = popen(PYTHON, *PIP.split(), *options.split(), source if is_lock else source.parent)
    output = follow(pip, name, total)
    if pip.wait():
        sys.exit(f"{output}\nrun.py: installing {name} failed; pip says why above.")
    installed[name] = wanted
    STAMP.write_text(json.dumps(installed, indent=1))


def follow(pip: subprocess.Popen[str], name: str, total: int) -> str:
    """Show pip's progress on one line of a terminal; keep its words in case it fails."""
    say(f"installing {name}: {total} package{'s'[: total > 1]}")
    lines: list[str] = []
    for line in pip.stdout or ():
        lines.append(line)
        seen = sum(kept.startswith(("Collecting", "Requirement")) for kept in lines)
        doing = "unpacking" if line.startswith("Installing") else f"{seen} of {total}"
        if sys.stderr.isatty():
            print(f"\r\033[K  {doing}", end="\r", file=sys.stderr, flush=True)
    return "".join(lines)


def ended(name: str, linter: subprocess.Popen[str]) -> int:
    """Wait for a linter and say how it ended, with its own words if it found something."""
    output, _ = linter.communicate()
    say(f"{name}: {'FAILED' if linter.returncode else 'ok'}")
    if linter.returncode:
        print(output)
    return linter.wait()


def side_by_side() -> list[str]:
    """Let pytest use the cores; what stays together is said in `conftest.py`."""
    return ["-n", str(min(os.cpu_count() or 1, 8))]


def python(*words: str) -> int:
    """Run the Python of `.venv`, on this terminal.

    It may keep compiled files: tests start hundreds of processes, and half of a short one's time
    would go into compiling the same files again.
    """
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.call([PYTHON, *words], cwd=ROOT, env=env)


def popen(*words: object) -> subprocess.Popen[str]:
    """Start a program, both its outputs in one pipe."""
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(
        [str(word) for word in words], cwd=ROOT, text=True, stdout=pipe, stderr=out
    )


def say(sentence: str) -> None:
    """Tell a person what happens; stdout stays for results."""
    print(f"run.py: {sentence}", file=sys.stderr, flush=True)


VERBS = {
    verb.__name__: verb
    for verb in (demo, test, lint, docs, conformance, faults, bench, fresh, phoenix, lock)
}


def main(words: list[str]) -> int | str:
    """Run the verb that *words* begin with."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this line is read by the Python that a person has
        return f"agentguard needs Python 3.11 or newer; this is {sys.version.split()[0]}"
    if not words or words[0] not in VERBS:
        lines = [
            f"  {name:12}{(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items()
        ]
        return "\n".join(["usage: python3 run.py VERB [arguments]", *lines])
    try:
        return VERBS[words[0]](words[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
