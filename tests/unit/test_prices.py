"""The price list: what is read, what is refused, what an image costs."""

from __future__ import annotations

from decimal import Decimal

import pytest

from libs.common.env import SettingsError, load
from services.worker.prices import Price, cost_micros, read_prices
from services.worker.settings import Settings

PRICES, _ = read_prices(
    ["gemini-3.1-flash-image=0.5:60:0", "gemini-3-pro-image=2:120:0.01", "gemini-3-pro=1:1:0"]
)


def test_a_list_is_read() -> None:
    prices, mistakes = read_prices(["m = 0.25 : 1.5 : 0.001", "n=0:0:1"])
    assert prices == {
        "m": Price(Decimal("0.25"), Decimal("1.5"), Decimal("0.001")),
        "n": Price(Decimal(0), Decimal(0), Decimal(1)),
    }
    assert mistakes == []


@pytest.mark.parametrize(
    "entry",
    [
        "m",
        "m=",
        "=1:1:1",
        "m=1:1",
        "m=1:1:1:1",
        "m=a:1:1",
        "m=-1:1:1",
        "m=NaN:1:1",
        "m=inf:1:1",
        "m=1:1:",
        "m=1000001:0:0",
    ],
)
def test_what_is_no_price_is_a_mistake(entry: str) -> None:
    prices, mistakes = read_prices([entry])
    assert prices == {}
    assert len(mistakes) == 1
    assert repr(entry) in mistakes[0]


def test_a_model_may_be_priced_once() -> None:
    assert read_prices(["m=1:1:1", "m=2:2:2"])[1] == ["m is there twice"]


def test_settings_report_every_mistake_at_once() -> None:
    environ = {
        "AUTH_SECRET": "s" * 32,
        "SERVICE_SECRET": "s" * 32,
        "BLOB_URL": "file:///x",
        "MODEL_PRICES": "m=1,n=x:1:1,o=1:2:3",
        "GENERATOR": "magic",
    }
    with pytest.raises(SettingsError) as refused:
        load(Settings, environ)
    about_prices = [p for p in refused.value.problems if p.startswith("MODEL_PRICES: ")]
    assert len(about_prices) == 2
    assert len(refused.value.problems) == 3
    settings = load(Settings, environ | {"MODEL_PRICES": "o=1:2:3", "GENERATOR": "offline"})
    assert list(settings.prices()) == ["o"]


@pytest.mark.parametrize(
    ("model", "tokens", "micros"),
    [
        ("gemini-3.1-flash-image", (560, 1120), 67480),  # 280 + 67,200
        ("gemini-3-pro-image", (0, 0), 10_000),
        ("gemini-3-pro-image-2026-05-01", (1, 1), 10_122),
        ("gemini-3-pro-image", (1_000_000, 1_000_000), 122_010_000),
        ("gemini-3.1-flash-image", (1, 0), 1),  # half a micro is rounded up
        ("gemini-3.1-flash-imagery", (1, 1), 0),
        ("offline-preview-1", (1, 1), 0),
    ],
)
def test_costs(model: str, tokens: tuple[int, int], micros: int) -> None:
    assert cost_micros(PRICES, model, *tokens) == micros
