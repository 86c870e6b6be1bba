"""The distribution: what a user's installer gets."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import ROOT, committed_files, python_files


@pytest.fixture(scope="module", name="wheel")
def built_wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel without any network."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet"]
    words = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(words, check=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_one_wheel_brings_the_core_and_every_integration(wheel: zipfile.ZipFile) -> None:
    """Every module of src and integrations is in the wheel, at the top where imports find it."""
    modules = {"/".join(path.relative_to(ROOT).parts[1:]) for path in shipped()}
    assert modules <= set(wheel.namelist())


def shipped() -> list[Path]:
    """List the modules and type markers of the packages."""
    markers = [path for path in committed_files() if path.name == "py.typed"]
    return python_files("src", "integrations") + markers


def test_every_package_is_marked_as_typed(wheel: zipfile.ZipFile) -> None:
    """Each package of the wheel carries `py.typed`."""
    packages = {name.partition("/")[0] for name in wheel.namelist() if name.endswith(".py")}
    assert {f"{package}/py.typed" for package in packages} <= set(wheel.namelist())


def test_the_wheel_brings_the_command(wheel: zipfile.ZipFile) -> None:
    """Installing the wheel makes the command `agentguard`."""
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "agentguard = agentguard.cli:main" in wheel.read(name).decode()


def test_the_wheel_brings_the_pytest_plugin(wheel: zipfile.ZipFile) -> None:
    """Installing the wheel is all that pytest needs to find the plugin."""
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "[pytest11]\nagentguard = agentguard_pytest\n" in wheel.read(name).decode() + "\n"
