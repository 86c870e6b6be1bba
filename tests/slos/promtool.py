"""Gets promtool, Prometheus' own checker, where the tests run: from the machine or from Debian."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tests.support import ROOT

PLACE = ROOT / ".venv" / "promtool"
PATIENCE = 90


@cache
def promtool() -> str:
    """Return its path; fetch Debian's package once, without installing it."""
    found = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if found is not None:
        return found
    tool = PLACE / "usr" / "bin" / "promtool"
    if not tool.exists():
        fetch()
    return str(tool)


def fetch() -> None:
    """Unpack Debian's package prometheus beside the environment, or skip with the reason."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        pytest.skip("no promtool here and no apt-get to fetch it; set PROMTOOL to its path")
    PLACE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE.parent) as folder:
        run = apt("download", "prometheus", folder=folder)
        if run.returncode and os.geteuid() == 0:  # a new machine may not know what there is
            apt("update", folder=folder)
            run = apt("download", "prometheus", folder=folder)
        package = next(Path(folder).glob("*.deb"), None)
        if package is None:
            pytest.skip(f"no promtool here, and apt-get did not fetch it: {run.stderr.strip()}")
        unpacked = Path(folder) / "unpacked"
        subprocess.run(["dpkg", "-x", package, unpacked], check=True, timeout=PATIENCE)
        (unpacked / "usr" / "bin" / "prometheus").unlink()  # 48 MB that nobody needs
        try:
            unpacked.rename(PLACE)
        except OSError:
            assert PLACE.exists()  # another worker was faster


def apt(*words: str, folder: str) -> subprocess.CompletedProcess[str]:
    """Run apt-get in *folder*; one that does not end has failed."""
    command = ["apt-get", *words]
    try:
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"it took over {PATIENCE} s")


def asked(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    return subprocess.run(
        [promtool(), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
