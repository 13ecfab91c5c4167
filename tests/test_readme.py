"""The README is true: what it shows runs, and what it lists is what there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import click
import pytest

from filesession import FileStore, MemoryStore
from filesession.cli.command import _MODULES, commands
from filesession.gateway import Gateway
from filesession.session import Session
from filesession.stores.entry import HANDLE_LENGTH
from filesession.stores.file.journal import FORMAT

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
ROWS = re.findall(r"^\| (.+?) \|", README, re.MULTILINE)


def section(title: str) -> str:
    _, _, rest = README.partition(f"\n{title}\n")
    assert rest, f"no section {title}"
    return re.split(r"\n##+ ", rest)[0]


def keywords(function: Any) -> set[str]:
    names = set(inspect.signature(function).parameters)
    return names - {"self", "app", "directory"}


def named_in(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in rows(text))))


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| `")]


def test_the_first_lines_give_an_application_sessions(tmp_path: Path) -> None:
    code = PYTHON[0].replace("/var/lib/myapp/sessions", str(tmp_path / "sessions"))
    names: dict[str, Any] = {"app": object()}
    exec(code, names)  # noqa: S102 - it is the README's
    assert isinstance(names["store"], FileStore)
    assert type(names["app"]).__name__ == "SessionMiddleware"


def test_the_signatures_of_the_store_are_its_own() -> None:
    shown = re.findall(r"^(\w+)\((.*)\) -> ", section("## The store"), re.MULTILINE)
    assert {name for name, _ in shown} == {"create", "load", "save"}
    for store in (FileStore, MemoryStore):
        for name, arguments in shown:
            own = inspect.signature(getattr(store, name)).parameters
            told = re.findall(r"(\w+)(?:=|,|$)", arguments)
            assert [each for each in own if each in told] == [each for each in told if each in own]
            assert set(told) - {"None"} - set(own) <= {"merge"}
            assert set(own) - set(told) <= {"self", "idle_timeout", "cookie"}


def test_regenerate_takes_its_option_by_name_as_shown() -> None:
    assert "`regenerate(*, keep_data=True)`" in README
    (_, keep_data) = inspect.signature(Session.regenerate).parameters.values()
    assert keep_data.kind is inspect.Parameter.KEYWORD_ONLY
    assert keep_data.default is True


def test_every_option_of_the_command_it_names_is_one() -> None:
    for row in re.findall(r"^\| `filesession (\w+)(.*)$", README, re.MULTILINE):
        command = commands.get_command(click.Context(commands), row[0])
        assert command is not None
        known = {name for each in command.params for name in each.opts}
        assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row[1])) <= known


@pytest.mark.parametrize("code", PYTHON)
def test_every_piece_of_python_parses(code: str) -> None:
    compile("" if "*, " in code else code, "README.md", "exec")  # a signature is no statement


def test_the_store_table_lists_every_option() -> None:
    assert named_in(section("## The store")) == keywords(FileStore)


def test_the_middleware_table_lists_every_option() -> None:
    table = section("## The middleware")
    assert named_in(table) == keywords(Gateway)


def test_the_session_table_lists_every_verb() -> None:
    verbs = set(re.findall(r"(\w+)\(", "\n".join(rows(section("### The session")))))
    assert verbs == {
        *("regenerate", "destroy", "touch", "save", "asave", "reload", "areload"),
        *("lock", "alock"),
    }
    assert all(callable(getattr(Session, verb)) for verb in verbs)


def test_the_command_table_lists_every_subcommand() -> None:
    listed = re.findall(r"`filesession (\w+)", section("## The janitor and the command"))
    assert set(listed) == set(_MODULES)


COMING_FROM = {
    "express-session": (
        *("secret", "name", "cookie", "resave", "saveUninitialized", "rolling", "unset", "genid"),
        *("proxy", "store", "path", "domain", "httpOnly", "partitioned", "priority", "secure"),
        *("sameSite", '"auto"', "maxAge", "expires", "originalMaxAge", "req.session.user"),
        *("req.sessionID", "req.session = null", "session.regenerate()", "session.reload()"),
        *("session.save()", "session.touch()", "session.resetMaxAge()", "session.destroy()"),
        *("store.get()", "store.set()", "store.touch()", "store.destroy()", "store.all()"),
        *("store.length()", "store.clear()", "disconnect", "connect", "session-file-store"),
        *("ttl", "reapInterval"),
    ),
    "nestjs-session": (
        *("forRoot", "forRootAsync", "useFactory", "inject", "imports", "forRoutes", "exclude"),
        *("retries", "retriesStrategy", "Cannot create session", "@Session()"),
    ),
    "@fastify/secure-session": (
        *("key", "secret", "salt", "expiry", "sessionName", "cookieName", "cookie"),
        *("cookieOptions", "session.get()", "session.set()", "session.data()"),
        *("session.changed", "session.deleted", "session.touch()", "session.delete()"),
        *("session.options()", "session.regenerate()", "createSecureSession"),
        *("decodeSecureSession", "encodeSecureSession", "npx @fastify/secure-session"),
    ),
}
"""Every option and verb of the packages that people come from."""


@pytest.mark.parametrize("package", COMING_FROM)
def test_whoever_comes_from_another_package_finds_every_name(package: str) -> None:
    _, _, table = section("## Coming from Express, NestJS or Fastify").partition(
        f"| {package} | here |\n"
    )
    lines = table.partition("\n\n")[0].splitlines()[1:]
    assert all(len(line.strip("|").split(" | ")) == 2 for line in lines)
    names = re.findall(r"`([^`]+)`", "\n".join(line.split(" | ")[0] for line in lines))
    assert set(names) == set(COMING_FROM[package])


def test_what_it_says_of_the_files_is_so(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "sessions")
    store.create({"a": 1})
    (info,) = store.scan()
    path = tmp_path / "sessions" / "sessions" / info.handle[:2] / info.handle
    assert f"first {HANDLE_LENGTH} hex digits of the SHA-256" in README
    assert len(info.handle) == HANDLE_LENGTH
    line = path.read_text()
    for member in ("format", "version", "lineage", "created", "saved", "data"):
        assert f'"{member}":' in line
        assert f"`{member}`" in section("## The directory")
    assert f'"format":{FORMAT}' in line


def test_every_file_it_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / target).exists(), target
