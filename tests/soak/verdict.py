"""Whether a measure is flat: a line through the second half of its samples, and its error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

HOUR_SECONDS = 3600.0
# Neighbouring samples are not independent (a clean-up saws at all of them), their means nearly are.
BLOCKS = 12
FEWEST_SAMPLES = 2 * BLOCKS
# One-sided, of a normal error, some forty measures at a time: less than 1 % for a false alarm.
ERRORS_OF_DOUBT = 3.5

Sample = tuple[float, float]
"""Seconds since the beginning, and the figure."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the second half of the samples says.

    Attributes:
        mean: of the figure.
        slope: per hour.
        error: its standard error.
        bound: what it may be.
    """

    mean: float
    slope: float
    error: float
    bound: float

    @property
    def grows(self) -> bool:
        """Whether the slope is past the bound beyond doubt."""
        return self.slope - ERRORS_OF_DOUBT * self.error > self.bound

    @property
    def word(self) -> str:
        """`grows`, `flat`, or `unclear`: the run was too short to tell."""
        if self.grows:
            return "grows"
        return "flat" if self.slope + self.error <= self.bound else "unclear"


def judge(samples: Sequence[Sample], bound: float) -> Verdict | None:
    """The verdict on one measure; None for too few samples."""
    half = samples[len(samples) // 2 :]
    if len(half) < FEWEST_SAMPLES:
        return None
    edges = [round(n * len(half) / BLOCKS) for n in range(BLOCKS + 1)]
    slope, error = _line([_mean(half[begin:end]) for begin, end in pairwise(edges)])
    mean = sum(value for _, value in half) / len(half)
    return Verdict(mean, slope * HOUR_SECONDS, error * HOUR_SECONDS, bound)


def _mean(samples: Sequence[Sample]) -> Sample:
    seconds, values = zip(*samples, strict=True)
    return sum(seconds) / len(seconds), sum(values) / len(values)


def _line(points: Sequence[Sample]) -> tuple[float, float]:
    """Slope and standard error, by least squares."""
    count = len(points)
    middle, level = _mean(points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    slope = sum((x - middle) * (y - level) for x, y in points) / spread
    rest = sum((y - level - slope * (x - middle)) ** 2 for x, y in points)
    return slope, math.sqrt(rest / (count - 2) / spread)
