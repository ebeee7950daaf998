"""How long the words for a prompt are waited for, by a clock of our own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from libs.common.outcomes import Outcome
from services.worker.domain import Claim, ImageToMake, Lease
from services.worker.generation import GenerationError, Words
from services.worker.usecases.enhance_prompt import EnhancePrompt
from tests.simulation.loop import LoopClock, VirtualLoop

SECONDS = 8.0


class Played:
    """A place that takes its time to be had, and a model that takes its own."""

    prompt_model = "words"

    def __init__(self, *, place_seconds: float, model_seconds: float) -> None:
        self._place_seconds = place_seconds
        self._model_seconds = model_seconds
        self.answers: list[Outcome | None] = []
        self.kept: list[str] = []

    @asynccontextmanager
    async def place(self, _lease: Lease, _model: str) -> AsyncIterator[None]:
        await asyncio.sleep(self._place_seconds)
        yield

    def answered(self, _model: str, fault: GenerationError | None) -> None:
        self.answers.append(fault.outcome if fault else None)

    async def enhance(self, _prompt: str) -> Words:
        await asyncio.sleep(self._model_seconds)
        return Words("soft light")

    async def record_prompt(
        self, _lease: Lease, enhanced: str, _enhance_ms: int
    ) -> tuple[ImageToMake, ...]:
        self.kept.append(enhanced)
        return ()


def enhance(**seconds: float) -> Played:
    """One prompt, enhanced."""
    played: Any = Played(**seconds)
    work = EnhancePrompt(
        generator=played,
        records=played,
        leave=played,
        governed=True,
        timeout_seconds=SECONDS,
        prices={},
        clock=LoopClock(),
    )
    claim: Any = Claim.__new__(Claim)
    for name, value in {"lease": None, "prompt_to_enhance": "a shirt"}.items():
        object.__setattr__(claim, name, value)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:

        async def run() -> None:
            await work(claim)

        runner.run(run())
    return played  # type: ignore[no-any-return]


def test_what_the_wait_for_a_place_took_is_not_taken_from_the_model() -> None:
    """Else a busy worker would report a model that is well as failing, for everybody."""
    played = enhance(place_seconds=0.9 * SECONDS, model_seconds=0.9 * SECONDS)
    assert played.answers == [None]
    assert "soft light" in played.kept[0]


def test_a_late_model_is_told_of_and_a_late_place_is_not() -> None:
    late_model = enhance(place_seconds=1.0, model_seconds=1.1 * SECONDS)
    assert (late_model.answers, late_model.kept) == ([Outcome.TIMED_OUT], [""])
    late_place = enhance(place_seconds=1.1 * SECONDS, model_seconds=1.0)
    assert (late_place.answers, late_place.kept) == ([], [""])
