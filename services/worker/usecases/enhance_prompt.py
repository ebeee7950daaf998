"""Enhancing a job's prompt: once per job, before its first image; a job never fails for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from libs.common.clock import Clock
from libs.common.errors import LeaseLostError
from libs.common.outcomes import Outcome
from services.worker.domain import Claim, ImageToMake, Lease, enhanced
from services.worker.generation import GenerationError, Generator, Usage, Words
from services.worker.prices import Price
from services.worker.usecases.call_leave import CallLeave

log = structlog.get_logger()


class PromptRecords(Protocol):
    """Who keeps the enhanced prompt."""

    async def record_prompt(
        self, lease: Lease, enhanced: str, enhance_ms: int
    ) -> tuple[ImageToMake, ...]:
        """The images' prompts, made of the first that was kept; raises LeaseLostError."""
        ...


@dataclass(frozen=True, slots=True)
class Enhanced:
    """The images to make with their prompts, and what the words took."""

    images: tuple[ImageToMake, ...]
    usage: Usage


class EnhancePrompt:
    """Adds a generator's words to the job's prompt, or settles that the original is used.

    Blocked, failed, throttled, late, too long or empty: the original is used, and kept as the
    answer, so that a later attempt makes its images of the same words. Neither prompts nor words
    are logged.

    Args:
        generator: finds the words.
        records: keeps them.
        leave: gives a place for the call.
        governed: whether that needs enqueue's leave for the model.
        timeout_seconds: for the wait for a place, and again for the call.
        prices: of the models.
        clock: measures it.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        records: PromptRecords,
        leave: CallLeave,
        governed: bool,
        timeout_seconds: float,
        prices: Mapping[str, Price],
        clock: Clock,
    ) -> None:
        self._generator = generator
        self._records = records
        self._leave = leave
        self._model = generator.prompt_model if governed else ""
        self._timeout = timeout_seconds
        self._prices = prices
        self._clock = clock

    async def __call__(self, claim: Claim) -> Enhanced:
        """At once where there is nothing to enhance.

        Raises:
            LeaseLostError: the job is not this worker's any more.
        """
        if not claim.prompt_to_enhance:
            return Enhanced(claim.images, Usage())
        begun = self._clock.monotonic()
        words = await self._words(claim)
        prompt = enhanced(claim.prompt_to_enhance, words.text)
        enhance_ms = round((self._clock.monotonic() - begun) * 1000)
        log.info("prompt.settled", enhanced=bool(prompt), enhance_ms=enhance_ms)
        images = await self._records.record_prompt(claim.lease, prompt, enhance_ms)
        return Enhanced(images, words.usage.priced(words.model, self._prices))

    async def _words(self, claim: Claim) -> Words:
        """A generator's words; none, and why in the log, where there are none to be had."""
        asked = False
        try:
            async with (
                asyncio.timeout(self._timeout) as limit,
                self._leave.place(claim.lease, self._model),
            ):
                # The wait is over, and none of the model's doing: the call has a time of its own.
                limit.reschedule(asyncio.get_running_loop().time() + self._timeout)
                asked = True
                words = await self._generator.enhance(claim.prompt_to_enhance)
        except LeaseLostError:
            raise
        except TimeoutError:
            fault = GenerationError(Outcome.TIMED_OUT, "no words in time")
        except GenerationError as error:
            fault = error
        except Exception as error:  # noqa: BLE001 - a job never fails for want of better words
            fault = GenerationError(Outcome.INTERNAL, "no words", detail=type(error).__name__)
        else:
            self._leave.answered(self._model, None)
            return words
        if asked:
            self._leave.answered(self._model, fault)
        log.warning("prompt.not_enhanced", outcome=fault.outcome.value, detail=fault.detail)
        return Words("")
