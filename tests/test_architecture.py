"""The house: imports point down, promises stand alone, integrations come in by the front door."""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT, code_lines, place, python_files

# The one table of floors, ground floor first. A name stands for a module, or for a package with
# every module in it that has no entry of its own. Imports point down, or along the same floor.
FLOORS = (
    "errors",
    """model canonical codec autonomy durations expressions outcomes redaction routing templates
    _backoff _content _price_values prompts _contexts _names _dressed _runtime _scope _told
    _tool_objects _wrapper _yaml slos _burning _wilson""",
    "protocols",
    """config _key_types _keys _keys_costs _keys_routing _keys_slos _keys_check _agent_run ledger
    stores""",
    """tool tickets _verdicts _independence _confirming _judging telemetry classify _signature
    _metrics _evaluations _callfacts _jsonschema _limits _loops _meter _runaway _hosted _hosts
    _apart _models _reports _routes run plans costs prices _genai_prices _decide _attempt
    _persist _claim _read _doubts _proposals _durable _together _undo _isolated _child _making
    _pipeline declaration""",
    "approval budget compensation contract fallback idempotency identity verification verifiers",
    """_entry hosting policies stages enforcement executions operations rollback guard questions
    retrieval artifacts caching _routed testing record estimates workflows slo_formats _binding
    phoenix otel readiness""",
    "__init__",
    "cli __main__ testing.conformance testing.stores testing.table",
)
PROMISES = 6  # on this floor no room imports another

FRAMEWORKS = {
    "agentguard_langchain": {"langchain", "langchain_core"},  # the former where it is used
    "agentguard_langgraph": {"langchain", "langchain_core", "langgraph"},
    "agentguard_llama_workflows": {"llama_index_instrumentation", "workflows"},
    "agentguard_llamaindex": {"llama_index"},
    "agentguard_pytest": {"pytest"},
    "agentguard_semantic_kernel": {"semantic_kernel"},
}

BUILDS_ON = {  # by its two doors, as on agentguard
    "agentguard_langgraph": "agentguard_langchain",
    "agentguard_llamaindex": "agentguard_llama_workflows",
}

BANNED_IMPORTS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
BANNED_CALLS = {"__import__", "eval", "exec"}
LONGEST_MODULE = 300
THICKEST_ADAPTER = 475  # routing and instrumentations came to the 400 of the first three promises
FUNCTION_MEDIAN, FUNCTION_P90 = 7, 25

DOORS = {  # for users, for adapters, for tests
    "agentguard": "__init__.py",
    "agentguard.hosting": "hosting.py",
    "agentguard.testing": "testing/__init__.py",
}
PACKAGE = ROOT / "src" / "agentguard"
Sources = Mapping[str, str]


def modules(root: Path) -> dict[str, str]:
    """Read a package: dotted name below *root* → source; the face of the whole is `__init__`."""
    named = ((path.relative_to(root).with_suffix(""), path) for path in root.rglob("*.py"))
    return {
        ".".join(name.parts).removesuffix(".__init__"): path.read_text(encoding="utf-8")
        for name, path in named
    }


def imported(sources: Sources, module: str) -> set[str]:
    """Find the rooms that *module* imports: at its top, under TYPE_CHECKING and in functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(sources[module])):
        if isinstance(node, ast.Import):
            names = [alias.name.partition(".") for alias in node.names]
            found |= {room or "__init__" for package, _, room in names if package == "agentguard"}
        elif isinstance(node, ast.ImportFrom) and (room := read_from(node, sources, module)):
            names_below = [f"{room}.{alias.name}".removeprefix("__init__.") for alias in node.names]
            found |= {name if name in sources else room for name in names_below}
    return found - {module}


def read_from(node: ast.ImportFrom, sources: Sources, module: str) -> str:
    """Name the room that a `from … import` reads; nothing for those of other packages."""
    if not node.level:
        package, _, room = (node.module or "").partition(".")
        return (room or "__init__") if package == "agentguard" else ""
    is_face = any(other.startswith(f"{module}.") for other in sources)
    parents = [] if module == "__init__" else module.split(".")
    above = parents[: len(parents) + is_face - node.level]
    return ".".join([*above, *filter(None, [node.module])]) or "__init__"


def arrows(sources: Sources) -> dict[str, set[str]]:
    """Draw the graph: each module and what it imports."""
    return {module: imported(sources, module) for module in sources}


def floor(module: str) -> int:
    """Look *module* up, or else the package it stands in."""
    table = {name: number for number, names in enumerate(FLOORS, 1) for name in names.split()}
    name = module
    while name and name not in table:
        name = name.rpartition(".")[0]
    if not name:
        pytest.fail(f"{module}: give it a floor (FLOORS in tests/test_architecture.py)")
    return table[name]


def upward(graph: Mapping[str, set[str]]) -> list[str]:
    """List the imports that point up."""
    pairs = [(module, other) for module in graph for other in graph[module]]
    return sorted(
        f"{module} (floor {floor(module)}) imports {other} (floor {floor(other)})"
        for module, other in pairs
        if floor(other) > floor(module)
    )


def neighbourly(graph: Mapping[str, set[str]]) -> list[str]:
    """List the imports from one promise's room into another's."""
    pairs = [(module, other) for module in graph for other in graph[module]]
    return sorted(
        f"{module} imports {other}"
        for module, other in pairs
        if floor(module) == floor(other) == PROMISES and module.split(".")[0] != other.split(".")[0]
    )


def circle(graph: Mapping[str, set[str]]) -> str:
    """Name one circle of imports, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " → ".join(error.args[1])
    return ""


@pytest.fixture(scope="module", name="graph")
def graph_of_the_package() -> dict[str, set[str]]:
    """Draw agentguard itself."""
    return arrows(modules(PACKAGE))


def test_imports_point_down(graph: dict[str, set[str]]) -> None:
    """No module imports one from a floor above it, wherever in the file the import stands."""
    assert upward(graph) == []


def test_promises_do_not_import_each_other(graph: dict[str, set[str]]) -> None:
    """Each promise is understood by opening one room."""
    assert neighbourly(graph) == []


def test_there_is_no_circle_of_imports(graph: dict[str, set[str]]) -> None:
    """Imports form no circle, not even through TYPE_CHECKING or a function's body."""
    assert circle(graph) == ""


def test_the_table_of_floors_names_no_room_twice() -> None:
    """Every room stands on exactly one floor."""
    names = " ".join(FLOORS).split()
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(
    "statement",
    [
        "from agentguard.guard import Guard",
        "import agentguard.guard",
        "from agentguard import guard",
        "from .guard import Guard",
        "from . import guard",
        "if TYPE_CHECKING:\n    from agentguard.guard import Guard",
        "def late():\n    from agentguard.guard import Guard",
    ],
)
def test_an_import_that_points_up_is_seen(statement: str) -> None:
    """The check knows every way to write an import."""
    assert upward(arrows({"errors": statement, "guard": ""})) == [
        "errors (floor 1) imports guard (floor 7)"
    ]


@pytest.mark.parametrize("statement", ["from agentguard import Guard", "from . import Guard"])
def test_an_import_of_the_front_door_from_inside_is_seen(statement: str) -> None:
    """A name taken from the package's face counts as an import of the top floor."""
    assert arrows({"run": statement, "__init__": ""})["run"] == {"__init__"}


def test_a_relative_import_inside_a_package_is_resolved() -> None:
    """Dots are counted from the module, and from the package in the case of its face."""
    sources = {
        "stores": "from .sqlite import Store",
        "stores.sqlite": "from ..errors import GuardError\nfrom . import schema",
        "stores.schema": "",
        "errors": "",
    }
    assert arrows(sources) == {
        "stores": {"stores.sqlite"},
        "stores.sqlite": {"errors", "stores.schema"},
        "stores.schema": set(),
        "errors": set(),
    }


def test_a_promise_that_imports_another_is_seen() -> None:
    """The check tells rooms of the promises' floor apart."""
    sources = {"budget": "from agentguard.approval import rule", "approval": ""}
    assert neighbourly(arrows(sources)) == ["budget imports approval"]


def test_a_circle_is_seen() -> None:
    """Two modules that import each other, one of them late, are a circle."""
    sources = {"run": "import agentguard.telemetry", "telemetry": "def f():\n    from . import run"}
    assert circle(arrows(sources)) in {"run → telemetry → run", "telemetry → run → telemetry"}


def test_a_module_without_a_floor_is_refused() -> None:
    """A new module makes its author decide where it stands."""
    with pytest.raises(pytest.fail.Exception, match="newcomer: give it a floor"):
        floor("newcomer")


def outside_imports(path: Path) -> Iterator[tuple[ast.stmt, str, str]]:
    """Walk the absolute imports of a file: statement, module, name taken from it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node, node.module or "", alias.name) for alias in node.names)


def test_the_core_does_not_know_its_integrations() -> None:
    """Nothing in src imports an integration or the framework of one; a suite of tests may use pytest."""
    foreign = {*FRAMEWORKS, *set[str]().union(*FRAMEWORKS.values())}
    assert [
        f"{place(path, node)}: {module}"
        for path in python_files("src")
        for node, module, _ in outside_imports(path)
        if module.partition(".")[0] in foreign
        and not (module == "pytest" and "testing" in path.parts)
    ] == []


def test_integrations_come_in_by_the_front_door() -> None:
    """An integration imports public names of agentguard, its framework, OpenTelemetry, the stdlib."""
    assert [
        f"{place(path, node)}: {module} {name}".rstrip()
        for path in python_files("integrations")
        for node, module, name in outside_imports(path)
        if not allowed(path.relative_to(ROOT).parts[1], module, name)
    ] == []


def allowed(integration: str, module: str, name: str) -> bool:
    """Tell whether *integration* may import *name* from *module*."""
    if integration not in FRAMEWORKS:
        pytest.fail(f"{integration}: name its framework (FRAMEWORKS in tests/test_architecture.py)")
    if module in DOORS:
        return name in public_names(PACKAGE / DOORS[module])
    ground = BUILDS_ON.get(integration)
    if module in (ground, f"{ground}.hosting"):
        door = "hosting.py" if module.endswith(".hosting") else "__init__.py"
        return name in public_names(ROOT / "integrations" / str(ground) / door)
    welcome = {integration, "opentelemetry", *FRAMEWORKS[integration], *sys.stdlib_module_names}
    return module.partition(".")[0] in welcome


def public_names(door: Path) -> list[str]:
    """Read `__all__` of a public module without importing it."""
    tree = ast.parse(door.read_text(encoding="utf-8"))
    values = [node.value for node in tree.body if isinstance(node, ast.Assign) and is_all(node)]
    return [name for value in values for name in ast.literal_eval(value)]


def is_all(node: ast.Assign) -> bool:
    """Tell whether *node* sets `__all__`."""
    return any(isinstance(name, ast.Name) and name.id == "__all__" for name in node.targets)


def test_an_import_past_the_front_door_is_seen() -> None:
    """A private room, a plain `import agentguard` and another framework are not allowed."""
    assert not allowed("agentguard_langgraph", "agentguard._pipeline", "call")
    assert not allowed("agentguard_langgraph", "agentguard", "")
    assert not allowed("agentguard_langgraph", "llama_index.core", "Workflow")
    assert allowed("agentguard_langgraph", "langgraph.types", "interrupt")


def test_an_integration_builds_on_another_by_its_doors_only() -> None:
    """LangGraph's adapter takes public names of LangChain's, and that is all it may take."""
    assert allowed("agentguard_langgraph", "agentguard_langchain", "guard_tools")
    assert allowed("agentguard_langgraph", "agentguard_langchain.hosting", "Frame")
    assert not allowed("agentguard_langgraph", "agentguard_langchain.hosting", "guard_tools")
    assert not allowed("agentguard_langgraph", "agentguard_langchain._calls", "Frame")
    assert not allowed("agentguard_langgraph", "agentguard_langchain", "")
    assert not allowed("agentguard_langchain", "agentguard_langgraph", "guard_graph")
    assert not allowed("agentguard_langchain", "langgraph.types", "interrupt")


def test_nothing_stored_can_turn_into_code() -> None:
    """Nothing we ship unpickles, unmarshals or evaluates what it reads."""
    shipped = python_files("src", "integrations")
    imports = [(path, *found) for path in shipped for found in outside_imports(path)]
    found = [place(path, node) for path, node, name, _ in imports if banned_import(name)]
    assert found + [place(path, node) for path in shipped for node in banned_calls(path)] == []


def banned_import(module: str) -> bool:
    """Tell whether importing *module* would let data become code."""
    return module.partition(".")[0] in BANNED_IMPORTS


def banned_calls(path: Path) -> list[ast.Call]:
    """Find the calls that turn text into running code."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [
        call for call in calls if isinstance(call.func, ast.Name) and call.func.id in BANNED_CALLS
    ]


@pytest.fixture(scope="module", name="sizes")
def sizes_of_what_we_ship() -> dict[str, tuple[int, list[int]]]:
    """Count the code lines of each shipped module and of its functions."""
    return {
        place(path): code_lines(path.read_text()) for path in python_files("src", "integrations")
    }


def test_no_module_outgrows_its_room(sizes: dict[str, tuple[int, list[int]]]) -> None:
    """No module that we ship has more than 300 lines of code."""
    assert {name: size for name, (size, _) in sizes.items() if size > LONGEST_MODULE} == {}


def test_adapters_stay_thin(sizes: dict[str, tuple[int, list[int]]]) -> None:
    """No adapter has more than 400 lines of code: what is no fact of a framework is in the core."""
    adapters: dict[str, int] = {}
    for name, (size, _) in sizes.items():
        folder, _, rest = name.partition("/")
        if folder == "integrations":
            adapter = rest.partition("/")[0]
            adapters[adapter] = adapters.get(adapter, 0) + size
    assert {name: size for name, size in adapters.items() if size > THICKEST_ADAPTER} == {}


def test_functions_stay_short(sizes: dict[str, tuple[int, list[int]]]) -> None:
    """Half of the functions have at most 7 lines of code and nine in ten at most 25."""
    lengths = sorted(length for _, found in sizes.values() for length in found)
    assert statistics.median(lengths) <= FUNCTION_MEDIAN
    assert lengths[len(lengths) * 9 // 10] <= FUNCTION_P90
