"""What the model is fed with: how long commits of real verbs take here, and what they cost."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Any

from agentguard.ledger import effects, settling
from agentguard.ledger.values import RunRef, Settlement
from agentguard.model import EffectState
from agentguard.testing.stores.ledger import enter, intent

TICK = os.sysconf("SC_CLK_TCK")
CALLERS = (1, 4, 16, 64)
FRAME = 4096 + 24
"""What SQLite writes into its log for a changed page."""


@dataclass
class Batch:
    """One commit: of how many verbs, how long it took, what it cost, how often it waited."""

    verbs: int
    seconds: float
    cpu: float
    trips: int = 0


@dataclass
class Engine:
    """What was measured of one engine.

    Attributes:
        fixed, each: seconds of a commit of *k* verbs are about ``fixed + each * k``.
        cpu_fixed, cpu_each: the same of the process's own CPU seconds.
        server_each: CPU seconds of the server for a verb.
        waits: 21 quantiles of the time for which a commit of one verb waits for disk and server.
        trips_fixed, trips_each: how often a commit waits for an answer of the server, as a line.
        rates: guarded writes a second by so many callers of one process.
        batches: verbs a commit, for so many callers.
        table_bytes, log_bytes: what a guarded write adds to the tables, and writes to the log.
    """

    fixed: float = 0.0
    each: float = 0.0
    cpu_fixed: float = 0.0
    cpu_each: float = 0.0
    server_each: float = 0.0
    waits: list[float] = field(default_factory=list)
    trips_fixed: float = 0.0
    trips_each: float = 0.0
    rates: dict[str, float] = field(default_factory=dict)
    batches: dict[str, float] = field(default_factory=dict)
    table_bytes: float = 0.0
    log_bytes: float = 0.0


class Callers:
    """So many callers of one process who start an effect, end it, and begin anew, without a pause."""

    def __init__(self, store: Any, callers: int) -> None:
        self.store, self.numbers = store, itertools.count()
        self.prefix, self.writes, self.stop = os.urandom(4).hex(), 0, False
        self.gone = threading.Semaphore(0)
        self.runs = [RunRef("acme", f"{self.prefix}-{n}", "agent:bot") for n in range(callers)]
        for run in self.runs:
            enter(store, run)

    def begin(self, run: RunRef) -> None:
        """Ask to start one more effect."""
        key = f"{self.prefix}-{next(self.numbers)}"
        wish = intent(run, key, reservations=(), claim_id=key)
        self.store.submit(lambda _, error: self.end(run, key, error), effects.begin, wish)

    def end(self, run: RunRef, key: str, error: BaseException | None) -> None:
        """Write down that it happened."""
        if error is not None:
            raise error
        told = Settlement(
            run, key, 1, 1, EffectState.SUCCEEDED, {"outcome": "executed"}, result="1"
        )
        self.store.submit(lambda _, failed: self.again(run, failed), settling.settle, told)

    def again(self, run: RunRef, error: BaseException | None) -> None:
        """Go on, or leave."""
        self.writes += 1
        if error is not None or self.stop:
            self.gone.release()
        else:
            self.begin(run)

    def work(self, seconds: float) -> float:
        """Let all of them work for a while; return guarded writes a second."""
        began = time.perf_counter()
        for run in self.runs:
            self.begin(run)
        threading.Event().wait(seconds)
        self.stop = True
        for _ in self.runs:
            self.gone.acquire()
        return self.writes / (time.perf_counter() - began)


@contextmanager
def batches_of(store: Any) -> Iterator[list[Batch]]:
    """Collect every commit of *store*."""
    found: list[Batch] = []
    writer = store._writer
    run = writer._run_batch

    def timed(batch: list[Any]) -> None:
        before, cpu, trips = time.perf_counter(), time.thread_time(), trips_of(store)
        run(batch)
        spent = time.perf_counter() - before, time.thread_time() - cpu
        found.append(Batch(len(batch), *spent, trips_of(store) - trips))

    writer._run_batch = timed
    yield found
    writer._run_batch = run


def trips_of(store: Any) -> int:
    """Return how often the server was waited for; a file has none."""
    wire = getattr(getattr(store, "_commits", None), "wire", None)
    return int(wire().trips) if wire else 0


def line(points: dict[int, float]) -> tuple[float, float]:
    """Return intercept and slope of the line through *points*, by least squares; neither below 0."""
    xs, ys = list(points), list(points.values())
    if len(points) == 1:
        return 0.0, ys[0] / xs[0]
    mx, my = fmean(xs), fmean(ys)
    slope = sum((x - mx) * (y - my) for x, y in points.items()) / sum((x - mx) ** 2 for x in xs)
    return max(my - slope * mx, 0.0), max(slope, 0.0)


def engine(store: Any, seconds: float, cpu_of_server: Callable[[], float] | None) -> Engine:
    """Measure one engine with few and many callers."""
    told, found = Engine(), list[Batch]()
    used, verbs = cpu_of_server() if cpu_of_server else 0.0, 0
    for callers in CALLERS:
        crowd = Callers(store, callers)
        with batches_of(store) as seen:
            told.rates[str(callers)] = crowd.work(seconds)
        told.batches[str(callers)] = fmean(batch.verbs for batch in seen)
        verbs += sum(batch.verbs for batch in seen)
        found += seen
    if cpu_of_server:
        told.server_each = (cpu_of_server() - used) / verbs
    by_size: dict[int, list[Batch]] = defaultdict(list)
    for batch in found:
        by_size[batch.verbs].append(batch)
    often = {k: group for k, group in by_size.items() if len(group) >= min(8, len(found) // 20 + 1)}

    def fit(of: Callable[[Batch], float]) -> tuple[float, float]:
        return line({k: median(map(of, group)) for k, group in often.items()})

    told.fixed, told.each = fit(lambda batch: batch.seconds)
    told.cpu_fixed, told.cpu_each = fit(lambda batch: batch.cpu)
    told.trips_fixed, told.trips_each = fit(lambda batch: batch.trips)
    own = told.server_each
    told.waits = spread([max(b.seconds - b.cpu - own, 0.0) for b in by_size.get(1, found)])
    return told


def spread(values: list[float]) -> list[float]:
    """Return least, 19 quantiles between, and most."""
    return [min(values), *quantiles(values, n=20, method="inclusive"), max(values)]


def sqlite(folder: Path, seconds: float) -> Engine:
    """Measure a file."""
    from agentguard.stores.sqlite import SqliteStore

    path = folder / "scale.db"
    store = SqliteStore(path)
    told = engine(store, seconds, None)
    crowd = Callers(store, 1)
    store._writing().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.stat().st_size
    crowd.work(seconds)
    _, frames, _ = store._writing().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    told.log_bytes = frames * FRAME / crowd.writes
    store._writing().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    told.table_bytes = (path.stat().st_size - before) / crowd.writes
    store.close()
    return told


def postgres(seconds: float) -> Engine:
    """Measure a server of its own."""
    from agentguard.stores.postgres import PostgresStore
    from tests.postgres.server import Server

    with Server() as server:
        root = server._process.pid if server._process else 0
        store = PostgresStore(server.url("postgres"))
        told = engine(store, seconds, lambda: cpu_of(root))
        crowd = Callers(store, 1)
        before, log = size(server), wal(server)
        crowd.work(seconds)
        told.table_bytes = (size(server) - before) / crowd.writes
        told.log_bytes = (wal(server) - log) / crowd.writes
        store.close()
    return told


def size(server: Any) -> int:
    """Return the bytes of tables and indexes."""
    return int(server.query("SELECT pg_database_size(current_database()) AS n")[0]["n"])


def wal(server: Any) -> int:
    """Return how far the log has come."""
    sql = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS n"
    return int(server.query(sql)[0]["n"])


def cpu_of(root: int) -> float:
    """Return the CPU seconds that a process and its children, also those that ended, have used."""
    total = 0
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    for process in (str(root), *children):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile, and its parent counts it
        total += sum(map(int, fields[11:15] if process == str(root) else fields[11:13]))
    return total / TICK
