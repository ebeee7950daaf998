"""Enhancing a job's prompt: once per job, before its first image, and never at its cost."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from libs.common.clock import Clock
from services.worker.domain import (
    Claim,
    GenerationError,
    Generator,
    ImageToMake,
    Lease,
    enhanced,
)

log = structlog.get_logger()


class PromptRecords(Protocol):
    """Who keeps the enhanced prompt."""

    async def record_prompt(
        self, lease: Lease, enhanced: str, enhance_ms: int
    ) -> tuple[ImageToMake, ...]:
        """The images' prompts, made of the first that was kept; raises LeaseLostError."""
        ...


class EnhancePrompt:
    """Adds a generator's words to the job's prompt, or settles that the original is used.

    Blocked, failed, late, too long or empty: the original is used, and kept as the answer, so that
    a later attempt makes its images of the same words. Neither prompts nor words are logged.

    Args:
        generator: finds the words.
        records: keeps them.
        timeout_seconds: for finding them.
        clock: measures it.
    """

    def __init__(
        self, *, generator: Generator, records: PromptRecords, timeout_seconds: float, clock: Clock
    ) -> None:
        self._generator = generator
        self._records = records
        self._timeout = timeout_seconds
        self._clock = clock

    async def __call__(self, claim: Claim) -> tuple[ImageToMake, ...]:
        """The images to make with their prompts; at once where there is nothing to enhance.

        Raises:
            LeaseLostError: the job is not this worker's any more.
        """
        if not claim.prompt_to_enhance:
            return claim.images
        begun = self._clock.monotonic()
        prompt = enhanced(claim.prompt_to_enhance, await self._words(claim.prompt_to_enhance))
        enhance_ms = round((self._clock.monotonic() - begun) * 1000)
        log.info("prompt.settled", enhanced=bool(prompt), enhance_ms=enhance_ms)
        return await self._records.record_prompt(claim.lease, prompt, enhance_ms)

    async def _words(self, prompt: str) -> str:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._generator.enhance(prompt)
        except TimeoutError:
            log.warning("prompt.not_enhanced", outcome="TIMED_OUT")
        except GenerationError as fault:
            log.warning("prompt.not_enhanced", outcome=fault.outcome.value, detail=fault.detail)
        except Exception as error:  # noqa: BLE001 - a job never fails for want of better words
            log.warning("prompt.not_enhanced", error=type(error).__name__)
        return ""
