"""Checks: what passes, what does not, and that all wrong fields are named together."""

from __future__ import annotations

import pytest

from libs.common.checks import Violations, checking
from libs.common.errors import InvalidArgumentError


def check_job(job_id: int, count: int, quality: int) -> None:
    with checking() as check:
        check.id(job_id, "job_id")
        check.within(count, 1, 10, "count")
        check.one_of(quality, (1, 2), "quality")
        if count == 0:
            raise KeyError


def test_all_wrong_fields_are_named_together() -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        check_job(0, 11, 9)
    assert [v.field for v in raised.value.violations] == ["job_id", "count", "quality"]
    assert raised.value.message == "3 fields are wrong"


def test_one_wrong_field_is_the_message() -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        check_job(1, 11, 1)
    assert raised.value.message == "count must be from 1 to 10"


def test_right_fields_raise_nothing_and_other_errors_pass() -> None:
    check_job(2**63 - 1, 10, 2)
    with pytest.raises(KeyError):
        check_job(0, 0, 0)


@pytest.mark.parametrize("value", ["", "red", "a\nb\tc", "über 日本 🎈", "x" * 20])
def test_texts_that_pass(value: str) -> None:
    assert Violations().text(value, 20, "label")


@pytest.mark.parametrize("value", ["x" * 21, "\0", "a\rb", "\x1b[31m", "\x7f", "\x85", "\x9b1m"])
def test_texts_that_do_not(value: str) -> None:
    violations = Violations()
    assert not violations.text(value, 20, "label")
    assert value not in violations.found[0].description


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_a_text_that_is_needed(value: str) -> None:
    assert not Violations().text(value, 20, "label", required=True)


@pytest.mark.parametrize(
    ("value", "ok"),
    [("", True), ("a-1_~!", True), ("x" * 64, True), ("x" * 65, False), ("a b", False)]
    + [(bad, False) for bad in (" ", "é", "a\n", "\0")],
)
def test_request_ids(value: str, *, ok: bool) -> None:
    assert Violations().request_id(value) is ok
