"""The shape of the package: what may import what, and what it gives to its users."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import filesession
import filesession.stores
from filesession.cli import command
from filesession.errors import FilesessionError

PACKAGE = Path(filesession.__file__).parent

OUTSIDE = {
    "orjson": {"codec"},
    "filelock": {"locks"},
    "apscheduler": {"janitor.schedule"},
    "watchdog": {"janitor.watcher"},
    "prometheus_client": {"janitor.metrics"},
    "cryptography": {"stores.node.kruptein"},
    "fastapi": {"contrib.fastapi"},
    "nacl": {"keyring"},
    "pydantic": {"contrib.typed"},
}
"""Libraries that one module each may know."""

ABOVE = (
    *("cli", "contrib", "testing", "asgi", "wsgi", "gateway", "janitor"),
    *("exchange", "sealed", "session"),
)
"""From the top down: what stands left may import what stands right, never the other way round."""

GROUND = {"record", "codec", "lifetime", "clock", "errors", "locks"}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            module = node.module or ""
            for alias in node.names:
                inner = f"{module}.{alias.name}".removeprefix("filesession.")
                names.add(f"filesession.{inner}" if inner in modules() else module)
    return names


def ours(path: Path) -> set[str]:
    return {
        name.removeprefix("filesession").removeprefix(".")
        for name in imported(path)
        if name.split(".")[0] == "filesession"
    }


def is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


@pytest.mark.parametrize("library", OUTSIDE)
def test_one_module_knows_each_outside_library(library: str) -> None:
    knowing = {
        name
        for name, path in modules().items()
        if any(is_in(module, library) for module in imported(path))
    }
    assert knowing == OUTSIDE[library]


@pytest.mark.parametrize(("name", "path"), sorted(modules().items()))
def test_imports_point_down(name: str, path: Path) -> None:
    room = next((room for room in ABOVE if is_in(name, room)), None)
    if name in {"", "__main__"}:
        return
    forbidden = ABOVE if room is None else ABOVE[: ABOVE.index(room)]
    if room == "janitor":
        forbidden = ("cli", "contrib", "asgi", "wsgi", "gateway", "exchange", "session", "cookies")
    elif room == "testing":
        forbidden = ("cli", "contrib", "asgi", "wsgi", "gateway", "janitor", "exchange")
    elif room in {"exchange", "sealed", "session"} or is_in(name, "cookies"):
        forbidden = (*forbidden, "stores.file", "stores.memory", "runner")
    wrong = {used for used in ours(path) if any(is_in(used, above) for above in forbidden)}
    assert not wrong


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_knows_nothing_above_it(name: str) -> None:
    assert ours(modules()[name]) <= GROUND


@pytest.mark.parametrize(("name", "path"), sorted(modules().items()))
def test_inside_the_package_names_come_from_where_they_are_defined(name: str, path: Path) -> None:
    packages = {module for module, file in modules().items() if file.name == "__init__.py"}
    used = {module for module in ours(path) if module in packages}
    assert not used or path.name == "__init__.py", f"{name} imports from a package's __init__"


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: ours(path) & set(modules()) for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " > ".join((*above, name))
        if name not in done:
            for used in graph[name]:
                visit(used, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("gateway", ["filesession.asgi", "filesession.wsgi"])
def test_a_web_application_loads_no_scheduler_no_command_and_no_extra(gateway: str) -> None:
    code = f"import sys, {gateway}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {module.split(".")[0] for module in run.stdout.split()}
    others = {"apscheduler", "watchdog", "prometheus_client", "rich", "click", "rich_click"}
    extras = {"cryptography", "fastapi", "nacl", "pydantic", "pytest"}
    assert not loaded & (others | extras)


def test_the_public_names_are_there() -> None:
    assert {
        *("FileStore", "MemoryStore", "Session", "SessionRecord", "SessionInfo", "SweepReport"),
        *("Janitor", "ConfigurationError", "ConflictError", "EncodeError", "FilesessionError"),
        *("CookieTooLarge", "LockTimeout", "SessionExists", "SessionGone", "SessionInvalid"),
        *("StoreError", "StoreFull", "StoreUnavailable"),
    } == set(filesession.__all__)
    for name in filesession.__all__:
        assert getattr(filesession, name).__doc__
    stores = {"FileStore", "MemoryStore", "NodeFileStore"}
    assert set(filesession.stores.__all__) == {"AsyncStore", "Store", *stores}


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = filesession.Nonsense


def test_every_error_is_one_of_ours() -> None:
    for name in filesession.__all__:
        value = getattr(filesession, name)
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, FilesessionError)


def test_the_command_is_what_the_script_runs() -> None:
    assert callable(command.main)
