"""docs/FAULTS.md, held to the code: every fault once, every test real, every crash point armed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.pages import ROOT, TESTS, missing_tests, not_shown

PAGE = (ROOT / "docs" / "FAULTS.md").read_text()
ROWS = [
    line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| [A-Z]\d", line)
]
# How many faults there are of each letter; I: what must hold.
FAULTS = dict(
    zip("EWAPCBDSGTFVRZKI", (12, 9, 6, 4, 1, 14, 12, 7, 9, 2, 3, 6, 9, 3, 3, 20), strict=True)
)
POINT = re.compile(r'crash\.(?:here|in_the_middle)[(,]\s*"([A-Z]\d+)"')
# Where a test says at which point a process is to die.
ARMING = re.compile(r"CRASH_AT|crash_at|CrashPoints")


def test_every_fault_stands_there_once() -> None:
    wanted = [f"{letter}{number}" for letter, n in FAULTS.items() for number in range(1, n + 1)]
    assert sorted(row[0] for row in ROWS) == sorted(wanted)


def test_every_test_that_shows_a_fault_exists() -> None:
    assert missing_tests(PAGE) == []


def test_every_fault_is_shown_or_says_why_not() -> None:
    assert not_shown(ROWS) == []


def strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_crash_point_is_armed_by_a_test() -> None:
    code = [*(ROOT / "services").rglob("*.py"), *(ROOT / "libs").rglob("*.py")]
    there = {found for path in code for found in POINT.findall(path.read_text())}
    arming = [path for path in TESTS.rglob("*.py") if ARMING.search(path.read_text())]
    armed = {
        point
        for path in arming
        if path != Path(__file__)
        for said in strings(path)
        for point in re.findall(r"(?:^|\")([A-Z]\d+)(?::\d+)?(?:$|\")", said)
    }
    assert there
    assert sorted(there - armed) == []
