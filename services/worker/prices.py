"""What calls cost by the worker's price list; standard library only.

Money is in millionths ("micros") of one currency, the price list's, which nobody names: it is
the operator's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

FORM = "model=input:output:image"
MAX_PRICE = Decimal(1_000_000)  # a higher one is a slip of the pen, and could overflow a row


@dataclass(frozen=True, slots=True)
class Price:
    """What one model takes, in the currency.

    Attributes:
        input_per_million: for a million tokens of prompt and references.
        output_per_million: for a million tokens of the answer, thinking included.
        per_image: for an image, on top of its tokens; 0 for a model of words.
    """

    input_per_million: Decimal
    output_per_million: Decimal
    per_image: Decimal


def read_prices(entries: Sequence[str]) -> tuple[dict[str, Price], list[str]]:
    """Model → price from entries in FORM, and one sentence per mistake.

    Prices are plain decimals from 0: `gemini-3-pro-image=2:120:0`.
    """
    prices: dict[str, Price] = {}
    mistakes = []
    for entry in entries:
        model, _, figures = entry.partition("=")
        price = _price(figures)
        if not model.strip() or price is None:
            mistakes.append(f"{entry!r} is not {FORM} with prices from 0 to {MAX_PRICE}")
        elif model.strip() in prices:
            mistakes.append(f"{model.strip()} is there twice")
        else:
            prices[model.strip()] = price
    return prices, mistakes


def _price(figures: str) -> Price | None:
    try:
        numbers = [Decimal(figure.strip()) for figure in figures.split(":")]
        within = all(number.is_finite() and 0 <= number <= MAX_PRICE for number in numbers)
    except InvalidOperation:
        return None
    return Price(*numbers) if within and len(numbers) == 3 else None  # noqa: PLR2004 - FORM's three


def cost_micros(
    prices: Mapping[str, Price], model: str, input_tokens: int, output_tokens: int
) -> int:
    """What one call cost, in micros, rounded to the nearest; 0 for a model without a price.

    Args:
        prices: model → price. A provider may answer with a longer name of the same model, such as
            a dated one: the longest listed name that it begins with, at a dash, counts.
        model: as the provider named it.
        input_tokens: of prompt and references.
        output_tokens: of the answer.
    """
    named = [name for name in prices if model == name or model.startswith(f"{name}-")]
    if not named:
        return 0
    price = prices[max(named, key=len)]
    # A price for a million tokens is, in micros, the price of one.
    micros = (
        price.input_per_million * input_tokens
        + price.output_per_million * output_tokens
        + price.per_image * 1_000_000
    )
    return int(micros.to_integral_value(ROUND_HALF_UP))
