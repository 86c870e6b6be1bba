"""The figures of `docs/scale.md`: each comes out of `docs/scale.json`, which the program writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from benchmarks.scale.study import ENOUGH, IN_TIME, SCENES, knee

MILLION = 1_000_000
BUSY = (
    "**The machine was busy with other work while this was measured** (load above its cores): what"
    " waits for CPU or disk took several times longer than it does on a quiet one."
)
NAMES = {"sqlite": "SQLite file", "postgres": "PostgreSQL"}
BLOCK = re.compile(r"(<!-- scale: (\w+) -->\n)(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)


def filled(document: str, data: dict[str, Any]) -> str:
    """Return *document* with its blocks written anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]](data)}\n{found[3]}", document)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ms(seconds: float) -> str:
    """Return milliseconds."""
    return f"{seconds * 1000:,.{2 if seconds < 0.01 else 0}f} ms"


def us(seconds: float) -> str:
    """Return microseconds."""
    return f"{seconds * 1e6:,.0f} µs"


def machine(data: dict[str, Any]) -> str:
    """Say on what it was measured, and whether that machine had something else to do."""
    told = data["machine"]
    shown = table(["machine", ""], [[name, value] for name, value in told.items()])
    if float(told["load before"]) <= float(told["cores"]):
        return shown
    return f"{shown}\n\n{BUSY}"


def measured(data: dict[str, Any]) -> str:
    """Say what a commit takes and costs."""
    engines = [data["measured"][name] for name in NAMES]
    lines: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("a commit of one verb waits for disk and server, median", lambda e: ms(e["waits"][10])),
        ("one in twenty waits longer than", lambda e: ms(e["waits"][19])),
        ("the longest wait", lambda e: ms(e["waits"][20])),
        ("CPU of the process for a commit", lambda e: us(e["cpu_fixed"])),
        ("and for each verb in it", lambda e: us(e["cpu_each"])),
        ("CPU of the server for each verb", lambda e: us(e["server_each"])),
        ("waits for an answer, a commit", lambda e: f"{e['trips_fixed']:.1f}"),
        ("and for each verb in it", lambda e: f"{e['trips_each']:.2f}"),
        ("tables and indexes, a guarded write", lambda e: f"{e['table_bytes']:,.0f} bytes"),
        ("log, a guarded write of a lone caller", lambda e: f"{e['log_bytes']:,.0f} bytes"),
        *(
            (f"guarded writes a second, callers of one process: {n}", partial(_rate, callers=n))
            for n in engines[0]["rates"]
        ),
    ]  # fmt: skip
    return table(["measured", *NAMES.values()], [[name, *map(of, engines)] for name, of in lines])


def _rate(engine: dict[str, Any], callers: str) -> str:
    return f"{engine['rates'][callers]:,.0f}"


def million(data: dict[str, Any]) -> str:
    """Say what a million guarded writes cost."""
    engines = [data["measured"][name] for name in NAMES]

    def cpu(engine: dict[str, Any], callers: str) -> float:
        a_verb: float = engine["cpu_fixed"] / engine["batches"][callers] + engine["cpu_each"]
        return 2 * MILLION * a_verb

    most = list(engines[0]["batches"])[-1]
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("commits, one caller", lambda _: f"{2 * MILLION:,}"),
        (
            f"commits, {most} callers a process",
            lambda e: f"{2 * MILLION / e['batches'][most]:,.0f}",
        ),
        ("CPU of the processes, one caller", lambda e: f"{cpu(e, '1'):,.0f} s"),
        (f"CPU of the processes, {most} callers", lambda e: f"{cpu(e, most):,.0f} s"),
        ("CPU of the server", lambda e: f"{2 * MILLION * e['server_each']:,.0f} s"),
        ("tables and indexes", lambda e: f"{e['table_bytes'] / 1000:,.2f} GB"),
        ("log, one caller", lambda e: f"{e['log_bytes'] / 1000:,.2f} GB"),
    ]
    head = ["a million guarded writes", *NAMES.values()]
    return table(head, [[name, *map(of, engines)] for name, of in rows])


def held(data: dict[str, Any]) -> str:
    """Put the model beside what was measured."""
    rows = [
        [f"{NAMES[name]}, callers: {line['callers']}", f"{line['measured']:,.0f}",
         f"{line['played']:,.0f}", f"{line['played'] / line['measured']:.2f}"]
        for name in NAMES for line in data["held"][name]
    ]  # fmt: skip
    return table(["guarded writes a second", "measured", "model", "model ÷ measured"], rows)


def scene(name: str) -> Callable[[dict[str, Any]], str]:
    """Return how one scene is shown."""

    def shown(data: dict[str, Any]) -> str:
        head = ["workers", "asked for", "written", "start, median", "start, p99",
                "verbs a commit", "cores", "disk"]  # fmt: skip
        rows = [
            [f"{int(workers):,}", f"{f['offered']:,.0f}/s", f"{f['writes']:,.0f}/s", ms(f["p50"]),
             ms(f["p99"]), f"{f['batch']:.1f}", f"{f['cores']:.0%}", f"{min(f['flush'], 1):.0%}"]
            for workers, f in data["simulated"][name].items()
        ]  # fmt: skip
        return table(head, rows)

    return shown


def knees(data: dict[str, Any]) -> str:
    """Say how far each scene goes."""
    rows = [
        [SCENES[name][0], _served(found), f"{max(f['writes'] for f in found.values()):,.0f}/s"]
        for name, found in data["simulated"].items()
    ]
    served = f"workers served: p99 of a start up to {ms(IN_TIME)}, {ENOUGH:.0%} of the writes"
    return table(["scene", served, "most written"], rows)


def _served(found: dict[str, dict[str, float]]) -> str:
    reached, least = knee(found), min(map(int, found))
    return f"{reached:,}" if reached else f"fewer than {least:,}"


def chosen(data: dict[str, Any]) -> str:
    """Say what was assumed."""
    said = data["assumed"]
    rows = [
        ["a model's turn, mean", f"{said['think']:g} s"],
        ["a tool's body, mean", f"{said['body']:g} s"],
        ["guarded writes of a run", f"{said['calls']}"],
        ["processes over which the workers are spread", f"{said['processes']}"],
        ["round trip to the server", ms(said["trip"])],
        ["cores of a server", f"{said['cores']}"],
        ["calls for which a share of a budget is taken", f"{said['share']}"],
    ]
    return table(["assumed", ""], rows)


BLOCKS: dict[str, Callable[[dict[str, Any]], str]] = {
    "machine": machine, "measured": measured, "million": million, "held": held, "knees": knees,
    "assumed": chosen, **{name: scene(name) for name in SCENES},
}  # fmt: skip
