"""Page tokens: of one list, of one team, and of our making."""

from __future__ import annotations

import base64

import pytest

from libs.common.errors import InvalidArgumentError
from libs.common.paging import LIFE_SECONDS, PageTokens, page_size
from tests.fakes.clock import ManualClock

TOKENS = PageTokens("s" * 32, ManualClock())
SCOPE = ("ListJobs", "red", "filter")


@pytest.mark.parametrize("position", [0, 1, 2**63 - 1])
def test_a_token_says_where_the_page_ended(position: int) -> None:
    assert TOKENS.open(TOKENS.seal(position, *SCOPE), *SCOPE) == position
    assert TOKENS.open("", *SCOPE) is None


@pytest.mark.parametrize("position", ["a", "sku-1", "größe/ü 10", "x" * 200])
def test_a_list_sorted_by_names_pages_by_names(position: str) -> None:
    token = TOKENS.seal_text(position, *SCOPE)
    assert TOKENS.open_text(token, *SCOPE) == position
    assert TOKENS.open_text("", *SCOPE) is None
    with pytest.raises(InvalidArgumentError):
        TOKENS.open_text(token, *SCOPE, "more")


TOKEN = TOKENS.seal(7, *SCOPE)
RAW = base64.urlsafe_b64decode(TOKEN + "=")


@pytest.mark.parametrize(
    ("token", "scope"),
    [
        (TOKEN, ("ListJobs", "blue", "filter")),
        (TOKEN, ("ListJobs", "red", "other")),
        (TOKEN, ("ListFiles", "red", "filter")),
        (TOKEN, ("ListJobs", "redfilter")),
        (PageTokens("t" * 32, ManualClock()).seal(7, *SCOPE), SCOPE),
        (base64.urlsafe_b64encode(bytes([1]) + RAW[1:]).decode().rstrip("="), SCOPE),
        (TOKEN[:-1], SCOPE),
        (TOKEN + "A", SCOPE),
        (TOKEN + "=", SCOPE),
        ("\n" + TOKEN, SCOPE),
        (TOKEN[:5] + "!" + TOKEN[5:], SCOPE),
        ("x", SCOPE),
        ("ü", SCOPE),
        ("AAAA", SCOPE),
        ("A" * 1000, SCOPE),
    ],
)
def test_any_other_token_is_refused(token: str, scope: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        TOKENS.open(token, *scope)
    assert raised.value.reason == "BAD_PAGE_TOKEN"
    assert [v.field for v in raised.value.violations] == ["page_token"]


def test_a_token_runs_out() -> None:
    clock = ManualClock()
    tokens = PageTokens("s" * 32, clock)
    token = tokens.seal(7, *SCOPE)
    clock.move(LIFE_SECONDS)
    assert tokens.open(token, *SCOPE) == 7
    clock.move(1)
    with pytest.raises(InvalidArgumentError) as raised:
        tokens.open(token, *SCOPE)
    assert raised.value.reason == "BAD_PAGE_TOKEN"


def test_page_sizes() -> None:
    assert page_size(0, default=50, most=200) == 50
    assert page_size(200, default=50, most=200) == 200
    for wrong in (-1, 201):
        with pytest.raises(InvalidArgumentError):
            page_size(wrong, default=50, most=200)
