"""A service in a process of its own, with a memory broker: to be killed, starved and signalled.

`python -m tests.support.service_process NAME`; its settings are the environment's. The first line
on stdout is its port.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import uvloop

from libs.common import env, logs
from libs.common.broker_memory import MemoryBroker
from libs.common.clock import SystemClock
from libs.common.ids import SystemIds
from libs.common.lifecycle import run_until_signal
from libs.common.service_app import ServiceApp

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 60.0


class _Announced:
    """Says on stdout where the app that started before it listens."""

    def __init__(self, app: ServiceApp) -> None:
        self._app = app

    async def start(self) -> None:
        await self._app.start()
        sys.stdout.write(f"{self._app.port}\n")
        sys.stdout.flush()

    async def stop(self) -> None:
        await self._app.stop()


async def main(name: str) -> None:
    app = importlib.import_module(f"services.{name}.app")
    settings = importlib.import_module(f"services.{name}.settings").Settings
    broker = MemoryBroker(clock=SystemClock(), ids=SystemIds())
    await broker.start()
    built = app.build(env.load(settings, env.process_environ()), broker=broker)
    await run_until_signal(_Announced(built))


@dataclass
class Running:
    """The process and where it listens."""

    process: asyncio.subprocess.Process
    port: int

    async def ended(self) -> int:
        """Its exit code; waits for it."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def service_process(
    name: str, environ: Mapping[str, str], *, log: Path | None = None
) -> AsyncIterator[Running]:
    """The service until the block ends, when it is killed if it still lives.

    Args:
        name: of the service.
        environ: its settings.
        log: where its log goes; ours by default.
    """
    with log.open("wb") if log else nullcontext() as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.service_process", name),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}", "PATH": os.defpath, **environ},
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(WAIT_SECONDS):
            line = await process.stdout.readline()
        assert line, f"{name} ended with {await process.wait()}"
        yield Running(process, int(line))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    logs.configure(sys.argv[1])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1]))
