"""The `offline` generator: composes the real inputs with Pillow; no key, no network, no model.

Threads, not processes: measured on 2 cores, two threads make 1.7 times the pictures of one with
new inputs and 2.0 times with inputs already cut out, as two processes do (Pillow works outside
the interpreter lock); and they start at once and share those cut-outs. Importing this module
loads Pillow: the composition root does so only where this generator is chosen.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor, ThreadPoolExecutor

from libs.common.clock import Clock
from services.worker.generation import GeneratedImage, ImageRequest, Words
from services.worker.generators.offline_cutout import CutoutCache
from services.worker.generators.offline_render import render
from services.worker.generators.offline_words import words_for

MODEL = "offline-preview-1"


class _AbandonedError(Exception):
    """Nobody waits for this picture any more; never leaves this module."""


class OfflineGenerator:
    """Makes a real, different picture per variation, the same one for the same request.

    At most `max_workers` pictures are rendered at a time; the others wait their turn.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        max_workers: int = 2,
        delay_seconds: float = 0.0,
        executor: Executor | None = None,
    ) -> None:
        """Take an executor of threads, which stays the caller's, or make one.

        `delay_seconds` is waited before each picture, for demonstrations of progress.
        """
        self._clock = clock
        self._delay_seconds = delay_seconds
        self._inputs = CutoutCache()
        self._own: ThreadPoolExecutor | None = None
        if executor is None:
            self._own = ThreadPoolExecutor(max_workers, thread_name_prefix="offline-generator")
            executor = self._own
        self._executor = executor

    @property
    def name(self) -> str:
        """`offline`."""
        return "offline"

    def model_for(self, quality: str) -> str:  # noqa: ARG002 - there is none
        """None: there is no provider whose rate could be used up."""
        return ""

    async def generate(self, request: ImageRequest) -> GeneratedImage:
        """Make one image; raises GenerationError(BAD_INPUT) where a reference is not sound.

        Cancelled, it returns at once: a picture not begun is never begun, and one in the works
        stops at its next step, its result dropped.
        """
        if self._delay_seconds > 0:
            await self._clock.sleep(self._delay_seconds)
        abandoned = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            data, content_type = await loop.run_in_executor(
                self._executor, self._render, request, abandoned
            )
        finally:
            abandoned.set()
        return GeneratedImage(data=data, content_type=content_type, model=MODEL, preview=True)

    @property
    def prompt_model(self) -> str:
        """None either."""
        return ""

    async def enhance(self, prompt: str) -> Words:
        """Fixed words, chosen by the prompt: there is no model to ask."""
        return Words(words_for(prompt))

    async def close(self) -> None:
        """Let go of the threads; pictures in the works are finished first, waiting ones are not."""
        if self._own is not None:
            await asyncio.to_thread(self._own.shutdown, wait=True, cancel_futures=True)

    def _render(self, request: ImageRequest, abandoned: threading.Event) -> tuple[bytes, str]:
        def checkpoint() -> None:
            if abandoned.is_set():
                raise _AbandonedError

        checkpoint()
        return render(request, self._inputs, checkpoint)
