"""docs/BADINPUT.md, held to the code: every row is shown by tests that exist."""

from __future__ import annotations

import re

from tests.architecture.pages import ROOT, missing_tests, not_shown

PAGE = (ROOT / "docs" / "BADINPUT.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| input |")
]
SECTIONS = 6


def test_every_row_is_an_input_an_answer_and_what_shows_it() -> None:
    assert len(ROWS) > 60
    assert [row for row in ROWS if len(row) != 3] == []
    assert len({row[0] for row in ROWS}) == len(ROWS)
    assert len(re.findall(r"^\| input \| answer \| shown by \|$", PAGE, re.MULTILINE)) == SECTIONS


def test_every_test_that_shows_a_refusal_exists() -> None:
    assert missing_tests(PAGE) == []


def test_every_refusal_is_shown_or_says_why_not() -> None:
    assert not_shown(ROWS) == []


def test_every_reason_on_the_page_is_raised() -> None:
    code = "".join(
        path.read_text() for room in ("services", "libs") for path in (ROOT / room).rglob("*.py")
    )
    told = {word for row in ROWS for word in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", row[1])}
    assert told
    assert sorted(word for word in told if not re.search(rf"\b{word}\b", code)) == []
