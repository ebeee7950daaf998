"""What pages that are tables of tests are held to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def functions(path: Path) -> set[str]:
    """The tests of a module."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def missing_tests(page: str) -> list[tuple[str, str]]:
    """The (module, test) that a page names and that do not exist; it must name some."""
    there = {
        (str(path.relative_to(TESTS)), test)
        for path in TESTS.rglob("test_*.py")
        for test in functions(path)
    }
    named = set(NAMED.findall(page))
    assert named
    return sorted(named - there)


def not_shown(rows: Iterable[list[str]]) -> list[str]:
    """The rows whose last cell neither names a test in full nor says why there is none."""
    return [
        row[0]
        for row in rows
        if not (NAMED.search(row[-1]) or re.match(r"not shown: \w.{20,}", row[-1]))
        or "`test" in NAMED.sub("", row[-1])
    ]
