"""A collector that hands everything on to a sink, for all tests of a module here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.collectors import rotel, sink


@dataclass(frozen=True, slots=True)
class Line:
    """A collector and what stands at its end."""

    collector: rotel.Collector
    sink: sink.Sink


@pytest.fixture(scope="module", name="line")
def collector_before_a_sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """Run Rotel, and a backend behind it."""
    folder: Path = tmp_path_factory.mktemp("rotel")
    with sink.listening() as end, rotel.collector(end.url, folder) as collector:
        yield Line(collector, end)
