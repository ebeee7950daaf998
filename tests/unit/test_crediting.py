"""The rules of credits: who may spend, and what does not add up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from libs.common.env import SettingsError, load
from services.enqueue.settings import Settings
from services.enqueue.store.credit_checks import AccountFigures, JobFigures
from services.enqueue.store.ledger import Account
from services.enqueue.usecases.crediting import Balance, Purse
from services.enqueue.usecases.reconciling import account_differences, job_differences


def test_a_purse_decides_in_order_and_lets_the_others_go_on() -> None:
    purse = Purse({"red": Account(10, 5, 5, 0)}, unlimited=True)
    decided = []
    for required in (3, 3, 2, 1):
        refusal = purse.refusal("red", required)
        if refusal is None:
            purse.take("red", required)
        decided.append(refusal and refusal.metadata)
    assert decided == [
        None,
        {"required": "3", "remaining": "2"},
        None,
        {"required": "1", "remaining": "0"},
    ]


def test_a_team_without_an_account_has_all_or_nothing() -> None:
    assert Purse({}, unlimited=True).refusal("red", 10**9) is None
    refusal = Purse({}, unlimited=False).refusal("red", 1)
    assert refusal is not None
    assert refusal.reason == "INSUFFICIENT_CREDITS"
    assert Purse({"red": Account()}, unlimited=True).refusal("red", 1) is not None
    assert Purse({"red": Account(), "blue": Account()}, unlimited=True).paying == {"red", "blue"}


def test_whether_a_balance_is_enough() -> None:
    assert Account() == Account(granted=0, available=0, held=0, captured=0)
    for enough in (Balance(Account(), unlimited=True), Balance(Account(2, 2), unlimited=False)):
        assert enough.enough_for(2)
    for short in (Balance(Account(), unlimited=False), Balance(Account(2, 1, 1), unlimited=False)):
        assert not short.enough_for(2)


# A grant of 10; one job of 3 ended with 2 images, one of 4 has made 1.
ACCOUNT = AccountFigures(
    team="red",
    granted=10,
    available=4,
    held=4,
    captured=2,
    grants=10,
    holds=7,
    captures=3,
    releases=1,
    live_held=4,
    live_done=1,
)
ENDED = JobFigures(
    id=7,
    team="red",
    ended=True,
    count=3,
    done=2,
    held=3,
    released=1,
    holds=3,
    captures=2,
    releases=1,
)


def test_what_adds_up_is_not_told() -> None:
    assert list(account_differences(ACCOUNT)) == []
    assert list(job_differences(ENDED)) == []
    live = replace(ENDED, ended=False, released=None, releases=0)
    assert list(job_differences(live)) == []


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("granted", 11, ["granted"]),
        ("available", 5, ["available"]),
        ("held", 3, ["held"]),
        ("captured", 3, ["captured"]),
        ("grants", 9, ["granted", "available"]),
        ("holds", 8, ["available"]),
        ("releases", 0, ["available"]),
        ("captures", 4, ["captured"]),
        ("live_held", 0, ["held"]),
        ("live_done", 0, ["captured"]),
    ],
)
def test_every_wrong_figure_of_an_account_is_told(field: str, value: int, told: list[str]) -> None:
    found = list(account_differences(replace(ACCOUNT, **{field: value})))  # type: ignore[arg-type]
    assert [(d.team, d.job_id, d.message.split()[0]) for d in found] == [
        ("red", 0, name) for name in told
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 4},
        {"done": 3},
        {"held": 4},
        {"released": 2},
        {"released": None},
        {"holds": 0},
        {"holds": 6},
        {"captures": 1},
        {"releases": 0},
        {"releases": 2},
        {"ended": False},
    ],
)
def test_every_wrong_figure_of_a_job_is_told(changes: dict[str, int | None]) -> None:
    found = list(job_differences(replace(ENDED, **changes)))  # type: ignore[arg-type]
    assert found
    assert {(d.team, d.job_id) for d in found} == {("red", 7)}


def test_a_word_that_is_none_is_refused_at_the_start() -> None:
    environ = {
        "ENQUEUE_DATABASE_URL": "sqlite+aiosqlite:///x",
        "AUTH_SECRET": "a" * 32,
        "SERVICE_SECRET": "s" * 32,
    }
    assert load(Settings, environ | {"TEAMS_WITHOUT_ACCOUNT": "none"}).review_required is False
    with pytest.raises(SettingsError) as raised:
        load(Settings, environ | {"TEAMS_WITHOUT_ACCOUNT": "all", "AUTH_JWKS": "x"})
    assert raised.value.problems == [
        "set exactly one of AUTH_SECRET and AUTH_JWKS",
        "TEAMS_WITHOUT_ACCOUNT must be unlimited or none",
    ]
