"""Measure, simulate, and write `docs/scale.json` and the figures of `docs/scale.md`.

python -m benchmarks.scale [--seconds 3] [--out docs] [--again]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.scale import measured, page, study
from benchmarks.scale.measured import Engine
from benchmarks.scale.model import Scene


def told(what: str) -> None:
    """Show what is done now."""
    print(f"scale: {what}", file=sys.stderr, flush=True)


def measure(seconds: float) -> tuple[dict[str, str], dict[str, Engine]]:
    """Measure both engines on this machine."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        told("measuring a SQLite file")
        file = measured.sqlite(folder, seconds)
        told("measuring a PostgreSQL server")
        server = measured.postgres(seconds)
        return describe(folder), {"sqlite": file, "postgres": server}


def study_of(machine: dict[str, str], engines: dict[str, Engine]) -> dict[str, Any]:
    """Play everything and return it as data."""
    return {
        "machine": machine,
        "measured": {name: kept(engine) for name, engine in engines.items()},
        "assumed": asdict(Scene()),
        "held": {
            n: list(study.held_against(e, one_file=n == "sqlite")) for n, e in engines.items()
        },
        "simulated": study.all_scenes(engines, told),
    }


def kept(engine: Engine) -> Any:
    """Return an engine's figures with as many digits as mean something."""
    return json.loads(
        json.dumps(asdict(engine)), parse_float=lambda text: float(f"{float(text):.5g}")
    )


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load is measured")
    parser.add_argument(
        "--out", type=Path, default=Path("docs"), help="where scale.json and scale.md are"
    )
    parser.add_argument(
        "--again", action="store_true", help="simulate with what was measured before"
    )
    asked = parser.parse_args()
    data, document = asked.out / "scale.json", asked.out / "scale.md"
    if asked.again:
        before = json.loads(data.read_text())
        machine, raw = before["machine"], before["measured"]
    else:
        machine, engines = measure(asked.seconds)
        raw = {name: kept(engine) for name, engine in engines.items()}
    found = study_of(machine, {name: Engine(**figures) for name, figures in raw.items()})
    data.write_text(json.dumps(found, indent=1) + "\n")
    if document.exists():
        document.write_text(page.filled(document.read_text(), found))
    print(
        page.measured(found), page.million(found), page.held(found), page.knees(found), sep="\n\n"
    )


if __name__ == "__main__":
    main()
