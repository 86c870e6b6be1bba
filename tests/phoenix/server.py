"""Arize Phoenix in an environment of its own, started on loopback and asked over its REST API."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.collectors.rotel import free_ports
from tests.collectors.sink import Span
from tests.support import ROOT

VENV = ROOT / ".venv-phoenix"
LOCK = ROOT / "requirements" / "phoenix.lock"
PIP = "-m pip install --no-deps --disable-pip-version-check --quiet --only-binary=:all:"
START = 240.0
"""Seconds in which it has to be up; 15 to 80 were seen."""
QUIET = {  # on by default, and not wanted in a test
    "PHOENIX_TELEMETRY_ENABLED": "false",
    "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
    "PHOENIX_ENABLE_MCP_SERVER": "false",
    "PHOENIX_AGENTS_DISABLE_WEB_ACCESS": "true",
    "PHOENIX_AGENTS_DISABLE_BASH": "true",
    "PHOENIX_AGENTS_DISABLE_GITHUB": "true",
}


class PhoenixBroken(RuntimeError):
    """Phoenix could not be installed or did not start; the sentence says what was seen."""


@dataclass(frozen=True, slots=True)
class Phoenix:
    """A running Phoenix.

    Attributes:
        url: where its pages and its API are.
    """

    url: str

    def get(self, path: str, **words: Any) -> Any:
        """Ask its REST API."""
        query = urllib.parse.urlencode(words, doseq=True)
        with urllib.request.urlopen(f"{self.url}/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)

    def spans(self, project: str) -> list[Span]:
        """Read the spans of a project back."""
        found = self._all(f"projects/{project}/spans", limit=1000)
        return sorted(map(span_of, found), key=lambda span: span.began)

    def annotations(self, project: str, spans: list[str]) -> list[Any]:
        """Read the annotations of spans back."""
        if not spans:
            return []
        return self._all(f"projects/{project}/span_annotations", span_ids=spans, limit=1000)

    def project(self, name: str) -> str:
        """Return the id of a project, as its pages are called."""
        return str(self.get(f"projects/{name}")["data"]["id"])

    def node(self, project: str, span_id: str) -> str:
        """Return the id of a span, as its pages are called."""
        found = self._all(f"projects/{project}/spans", limit=1000)
        return next(str(each["id"]) for each in found if each["context"]["span_id"] == span_id)

    def _all(self, path: str, **words: Any) -> list[Any]:
        found: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.get(path, **words, **cursor)
            found += page["data"]
            if not page["next_cursor"]:
                return found
            cursor = {"cursor": page["next_cursor"]}


def span_of(told: Any) -> Span:
    """Read a span of the API as the tests read every span; Phoenix keeps no links."""
    began = told["start_time"]
    return Span(
        told["context"]["trace_id"],
        told["context"]["span_id"],
        told["parent_id"] or "",
        told["name"],
        "",
        told["status_code"],
        {**told["attributes"], "openinference.span.kind": told["span_kind"]},
        (),
        nanoseconds(began),
    )


def nanoseconds(moment: str) -> int:
    """Read a moment as the API writes it."""
    from datetime import datetime

    return int(datetime.fromisoformat(moment).timestamp() * 1_000_000) * 1000


def environment() -> Path:
    """Build the environment unless it is what the lock says; return its folder of programs."""
    stamp, programs = VENV / "installed.json", VENV / ("Scripts" if os.name == "nt" else "bin")
    wanted = {
        "lock": hashlib.sha256(LOCK.read_bytes()).hexdigest(),
        "built by": f"Python {sys.version_info[0]}.{sys.version_info[1]} in {ROOT}",
    }
    if stamp.exists() and json.loads(stamp.read_text("utf-8")) == wanted:
        return programs
    say(f"installing Phoenix in {VENV.name}, {LOCK.read_text('utf-8').count('==')} packages")
    shutil.rmtree(VENV, ignore_errors=True)
    venv.create(VENV, with_pip=True, symlinks=os.name != "nt")
    words = [str(programs / "python"), *PIP.split(), "--require-hashes", "-r", str(LOCK)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise PhoenixBroken(f"Phoenix could not be installed: {done.stdout}{done.stderr}"[-2000:])
    stamp.write_text(json.dumps(wanted), encoding="utf-8")
    return programs


@contextmanager
def running(programs: Path) -> Iterator[Phoenix]:
    """Run Phoenix with nothing in it for as long as the block lasts."""
    port, grpc = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="agentguard-phoenix-") as folder:
        address = {
            "PHOENIX_WORKING_DIR": folder,
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(grpc),
        }
        clean = {name: v for name, v in os.environ.items() if not name.startswith("PHOENIX_")}
        with (Path(folder) / "phoenix.log").open("w+b") as log:
            process = subprocess.Popen(
                [programs / "phoenix", "serve"], env={**clean, **QUIET, **address}, cwd=folder,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                found = Phoenix(f"http://127.0.0.1:{port}")
                wait_for(found, process, Path(log.name))
                yield found
            finally:
                process.terminate()
                process.wait(30)


def wait_for(phoenix: Phoenix, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until it answers.

    Raises:
        PhoenixBroken: it has ended, or takes too long.
    """
    ends = time.monotonic() + START
    while time.monotonic() < ends and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{phoenix.url}/healthz", timeout=5):
                return
        except OSError:
            time.sleep(0.5)  # nothing tells when it is up
    raise PhoenixBroken(f"Phoenix did not start: {log.read_text('utf-8', 'replace')[-2000:]}")


def say(sentence: str) -> None:
    """Tell a person what happens; stdout stays for results."""
    sys.stderr.write(f"phoenix: {sentence}\n")
    sys.stderr.flush()
