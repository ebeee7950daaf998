"""The pages, as far as they can be held to the code: links, paths, calls, log lines, settings."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import grpc
import pytest
import typer

from cli.main import app
from contentshop.assets.v1 import assets_pb2, backend_pb2
from contentshop.enqueue.v1 import enqueue_pb2, execution_pb2, ops_pb2
from contentshop.packager.v1 import packager_pb2
from contentshop.worker.v1 import worker_pb2
from libs.common.grpc_server import access_rules

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
# Pages that say where things are now; decisions say where they were when they were taken.
MAPS = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
ROOMS = ("services", "libs", "cli", "protos", "tests", "scripts", "deploy", "docs", "examples")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
PATH = re.compile(r"(?:[\w{}<>*,.-]+/)*[\w{}*,-]+\.(?:py|proto|sql|sh|md)")
LOUD = ("warning", "error", "exception", "critical")
CODE_ROOMS = ("services", "libs")
# Reasons of what is built or called inside: no caller of a team or an operator gets them.
INSIDE = {
    *("BAD_BLOB_KEY", "BAD_BLOB_URL", "BLOB_EXISTS", "BLOB_SIZE", "BLOB_TOO_LARGE"),
    *("BUCKET_MISSING", "INVALID_BROKER_URL", "MEMORY_BROKER_OUTSIDE_UP", "UNROUTABLE"),
}
CODE = (".py", ".proto", ".sql", ".md")
PROTOS: tuple[ModuleType, ...] = (
    *(assets_pb2, backend_pb2, enqueue_pb2, execution_pb2, ops_pb2, packager_pb2, worker_pb2),
)
EVENT = re.compile(r"[a-z_]+\.[a-z_]+")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def files() -> list[str]:
    found = [path for room in ROOMS for path in (ROOT / room).rglob("*.*")]
    return [f"/{path.relative_to(ROOT)}" for path in [*found, *ROOT.glob("*.*")]]


@pytest.mark.parametrize("page", MAPS, ids=name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    """Named in full, or from within a service: `usecases/storing.py`."""
    there = files()
    named = {
        word
        for quoted in re.findall(r"`([^`\n]+)`", page.read_text())
        for word in [quoted.split(":")[0].strip()]
        if PATH.fullmatch(word) and not set("{<") & set(word)
    }
    assert [w for w in sorted(named) if not any(fnmatch(f, f"*/{w}") for f in there)] == []


def test_decisions_are_numbered_once_and_all_listed() -> None:
    pages = sorted(path.name for path in (DOCS / "decisions").glob("0*.md"))
    assert [int(page[:4]) for page in pages] == list(range(1, len(pages) + 1))
    index = (DOCS / "decisions" / "README.md").read_text()
    for page in pages:
        title = (
            (DOCS / "decisions" / page).read_text().split("\n")[0].removeprefix(f"# {page[:4]} ")
        )
        assert f"| [{page[:4]}]({page}) | {title} |" in index


def test_every_dependency_has_its_reason() -> None:
    page = (DOCS / "decisions" / "0002-dependencies.md").read_text().lower()
    lines = "".join(path.read_text() for path in (ROOT / "requirements").glob("*.in")).splitlines()
    named = [re.split(r"[^\w.-]", line.lower())[0] for line in lines if re.match(r"\w", line)]
    assert named
    assert [
        one for one in named if not re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", page)
    ] == []


def test_every_word_is_in_the_glossary_once() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\*", (ROOT / "GLOSSARY.md").read_text(), re.MULTILINE)
    assert len(words) > 1
    assert sorted({word for word in words if words.count(word) > 1}) == []


def rpcs() -> set[str]:
    protos = (ROOT / "protos").rglob("*.proto")
    return {
        rpc
        for path in protos
        for rpc in re.findall(r"^  rpc (\w+)\(", path.read_text(), re.MULTILINE)
    }


def test_every_call_is_shown_or_tested() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    calls = set(re.findall(r"\.(\w+)\(", tests)) | set(re.findall(r'"(\w+)"', tests))
    shown = set(
        re.findall(r"\w+", (DOCS / "USING.md").read_text() + (ROOT / "README.md").read_text())
    )
    assert sorted(rpcs() - calls - shown) == []


def test_every_reason_is_told_and_real() -> None:
    """What errors are switched on by: in the protos or on USING.md, and nowhere but there."""
    code = "".join(path.read_text() for room in CODE_ROOMS for path in (ROOT / room).rglob("*.py"))
    raised = set(re.findall(r'reason="([A-Z][A-Z_]+)"', code))
    protos = "".join(path.read_text() for path in (ROOT / "protos").rglob("*.proto"))
    told = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", protos))
    page = (DOCS / "USING.md").read_text().split("## When it goes wrong")[1]
    listed = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", page))
    assert sorted(raised - told - listed - INSIDE) == []
    there = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", code + enums()))
    assert sorted((told | listed) - there) == []


def enums() -> str:
    """The names of enum values in the protos, and of gRPC's codes."""
    protos = "".join(path.read_text() for path in (ROOT / "protos").rglob("*.proto"))
    values = re.findall(r"^\s+([A-Z_0-9]+) = \d", protos, re.MULTILINE)
    return " ".join([*values, *(code.name for code in grpc.StatusCode)])


def test_what_is_called_on_the_pages_exists() -> None:
    shown = "".join(page.read_text() for page in MAPS)
    called = set(re.findall(r"(?:Service|JOBS|OPS|FILES|ZIPS)/([A-Z]\w+)", shown))
    assert called
    assert sorted(called - rpcs()) == []


def commands(of: typer.Typer) -> set[str]:
    """`up`, `batch`, `batch create` and the like."""
    found = {
        one.name or one.callback.__name__.strip("_")
        for one in of.registered_commands
        if one.callback is not None
    }
    for group in of.registered_groups:
        assert group.name is not None
        assert group.typer_instance is not None
        found |= {group.name} | {f"{group.name} {one}" for one in commands(group.typer_instance)}
    return found


def test_commands_on_the_pages_exist() -> None:
    there = commands(app)
    groups = {command.split()[0] for command in there if " " in command}
    for page in MAPS:
        text = page.read_text()
        named = set(
            re.findall(r"contentshop ((?:(?:batch|ops|folders|moodboard) )?[a-z][a-z-]*)", text)
        )
        # Pages speak of `ops queues` and the like without the program's name.
        named |= {" ".join(pair) for pair in re.findall(r"`(ops|batch) ([a-z-]+)", text)}
        assert sorted(named - there) == [], name(page)
    assert groups == {"batch", "ops", "folders", "moodboard"}


def loud_events() -> Iterator[str]:
    """The events that services log as warnings and errors."""
    for path in [*(ROOT / "services").rglob("*.py"), *(ROOT / "libs").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            first = node.args[0] if node.args else None
            if node.func.attr in LOUD and isinstance(first, ast.Constant):
                text = str(first.value)
                if EVENT.fullmatch(text):
                    yield text


def test_operations_says_what_every_warning_wants() -> None:
    page = (DOCS / "OPERATIONS.md").read_text().split("## What the log says")[1].split("\n## ")[0]
    first_columns = re.findall(r"^\| (`.+?) \|", page, re.MULTILINE)
    told = [event for column in first_columns for event in re.findall(r"`([^`]+)`", column)]
    assert sorted(told) == sorted(set(loud_events()))


def test_tests_that_are_named_exist() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = {one for page in MAPS for one in re.findall(r"`(test_\w+)`", page.read_text())}
    assert named
    assert [one for one in sorted(named) if f"def {one}(" not in tests] == []


def test_security_says_who_may_call_what() -> None:
    page = (DOCS / "SECURITY.md").read_text()
    rows = {
        cell: set(re.findall(r"`(\w+)`", scopes))
        for cells, scopes in re.findall(r"^\| ([^|]*) \| ([^|]*) \|$", page, re.MULTILINE)
        for cell in re.findall(r"\w+", cells)
    }
    services = [s for file in PROTOS for s in file.DESCRIPTOR.services_by_name.values()]
    rules = access_rules(services)
    assert len(rules) > len(services)
    for method, scopes in rules.items():
        service, call = method.split(".")[-1].split("/")
        assert set(scopes) == rows.get(call, rows[service]), method


def test_decisions_that_the_code_names_exist() -> None:
    there = {path.name[:4] for path in (DOCS / "decisions").glob("0*.md")}
    sources = [path for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in CODE]
    named = {
        number for path in sources for number in re.findall(r"decisions/(\d{4})", path.read_text())
    }
    assert named
    assert sorted(named - there) == []


def test_the_life_of_a_job_names_every_crash_point() -> None:
    services = [*(ROOT / "services").rglob("*.py"), *(ROOT / "libs").rglob("*.py")]
    point = re.compile(r'crash\.(?:here|in_the_middle)[(,]\s*"([A-Z]\d+)"')
    there = {found for path in services for found in point.findall(path.read_text())}
    page = (DOCS / "LIFE-OF-A-JOB.md").read_text()
    named = set(re.findall(r"\b([A-Z]\d{1,2})\b", page))
    for letter, low, high in re.findall(r"\b([A-Z])(\d+)\u2013[A-Z](\d+)\b", page):
        named |= {f"{letter}{number}" for number in range(int(low), int(high) + 1)}
    assert there
    assert sorted(there - named) == []


def test_the_example_environment_is_up_to_date() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "scripts.env_example"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert (ROOT / ".env.example").read_text() == made.stdout


def test_variables_on_the_pages_exist() -> None:
    known = set(re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    cells = re.findall(
        r"^\| ([A-Z][A-Z_, ]+) \|", (DOCS / "OPERATIONS.md").read_text(), re.MULTILINE
    )
    told = {word for cell in cells for word in cell.split(", ")}
    assert told
    assert sorted(told - known) == []
