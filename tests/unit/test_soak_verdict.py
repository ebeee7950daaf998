"""A soak says `grows` of what grows, and of nothing else."""

from __future__ import annotations

import random

import pytest

from tests.soak.verdict import FEWEST_SAMPLES, Sample, judge

BOUND = 10.0
RUN_SECONDS = 900


def samples(per_hour: float, noise: float = 0.0, *, start: float = 0.0) -> list[Sample]:
    dice = random.Random(7)  # noqa: S311 - the same noise each time
    return [
        (second, start + per_hour * second / 3600 + dice.uniform(-noise, noise))
        for second in range(0, RUN_SECONDS, 5)
    ]


@pytest.mark.parametrize(
    ("per_hour", "noise", "word"),
    [
        (0, 0, "flat"),
        (9, 0, "flat"),
        (11, 0, "grows"),
        (-500, 0, "flat"),
        (100, 3, "grows"),
        (0, 0.5, "flat"),
        (40, 40, "unclear"),
    ],
)
def test_a_slope_is_told_from_noise(per_hour: float, noise: float, word: str) -> None:
    verdict = judge(samples(per_hour, noise), BOUND)
    assert verdict is not None
    assert verdict.word == word, verdict


def test_the_slope_is_per_hour() -> None:
    verdict = judge(samples(60, start=5), BOUND)
    assert verdict is not None
    assert verdict.slope == pytest.approx(60)
    assert verdict.error == pytest.approx(0, abs=1e-6)


def test_what_settles_in_the_first_half_is_flat() -> None:
    steep = [(second, float(min(second, RUN_SECONDS // 2))) for second in range(RUN_SECONDS)]
    verdict = judge(steep, BOUND)
    assert verdict is not None
    assert verdict.word == "flat"


def test_a_saw_is_flat() -> None:
    verdict = judge([(float(s), float(s % 20)) for s in range(0, RUN_SECONDS, 1)], BOUND)
    assert verdict is not None
    assert not verdict.grows


def test_too_few_samples_say_nothing() -> None:
    assert judge(samples(1000)[: FEWEST_SAMPLES - 1], BOUND) is None
