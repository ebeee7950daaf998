"""A real worker whose generator costs nothing but a wait: `… zero_worker DELAY_MS CALLS_FILE`.

Each generator call is a line `job index` in CALLS_FILE, written before the wait, so that calls
are counted over a kill -9.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import uvloop

from libs.common import env, logs
from libs.common.lifecycle import run_until_signal
from services.worker.app import build
from services.worker.generation import GeneratedImage, ImageRequest, Words
from services.worker.settings import Settings
from tests.fixtures import images


class ZeroGenerator:
    """Gives the same small PNG each time, after a wait."""

    name = "zero"

    def __init__(self, delay_seconds: float, calls: Path) -> None:
        self._delay = delay_seconds
        self._calls = os.open(calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._image = GeneratedImage(images.encoded("PNG"), "image/png", "zero")

    def model_for(self, _quality: str) -> str:
        return ""

    async def generate(self, request: ImageRequest) -> GeneratedImage:
        os.write(self._calls, f"{request.job_id} {request.index}\n".encode())
        if self._delay:
            await asyncio.sleep(self._delay)
        return self._image

    @property
    def prompt_model(self) -> str:
        return ""

    async def enhance(self, prompt: str) -> Words:
        return Words(prompt)

    async def close(self) -> None:
        os.close(self._calls)


def main() -> None:
    settings = env.load(Settings, env.process_environ())
    logs.configure("worker", level=settings.log_level, json=settings.log_json)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


async def serve(settings: Settings) -> None:
    generator = ZeroGenerator(float(sys.argv[1]) / 1000, Path(sys.argv[2]))
    await run_until_signal(build(settings, generator=generator))


if __name__ == "__main__":
    main()
