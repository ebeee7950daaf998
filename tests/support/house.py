"""The embedded house and the command, as real processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libs.common.env import process_environ

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0
STOP_SECONDS = 60.0
RUN_SECONDS = 120.0


def environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without its CONTENTSHOP_ variables, with the repository importable."""
    ours = {k: v for k, v in process_environ().items() if not k.startswith("CONTENTSHOP_")}
    return {**ours, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}", **(extra or {})}


async def spawn(
    *args: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> asyncio.subprocess.Process:
    """`contentshop ARGS` as a process of a session of its own."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", *(str(arg) for arg in args)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ(env),
        cwd=cwd,
        start_new_session=True,
        limit=2**22,  # a line of --json may be long
    )


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """Its one JSON object; AssertionError for anything else on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, (self.out, self.err)
        value = json.loads(lines[0])
        assert isinstance(value, dict)
        return value


async def ran(process: asyncio.subprocess.Process, seconds: float = RUN_SECONDS) -> Ran:
    """The process at its end, which comes in time: TimeoutError, and it is killed, if not."""
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), (err or b"").decode())


async def contentshop(
    *args: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Ran:
    """Runs `contentshop ARGS` to its end."""
    return await ran(await spawn(*args, env=env, cwd=cwd))


class House:
    """A running `contentshop up`."""

    def __init__(self, data: Path, process: asyncio.subprocess.Process, ready: Any) -> None:
        self.data = data
        self.process = process
        self.ready = ready

    async def run(self, *args: str | Path) -> Ran:
        """A command against this house."""
        return await contentshop(*args, "--data", self.data)

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(STOP_SECONDS):
            return await self.process.wait()

    async def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def house(
    data: Path, *args: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[House]:
    """A house on free ports that ends with this block; also when the tests are killed."""
    process = await spawn(
        *("up", "--data", str(data), "--port-base", "0", "--stop-on-eof", "--json", *args), env=env
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
        if not line:
            raise AssertionError((await process.stderr.read()).decode())
        running = House(data, process, json.loads(line))
        yield running
        await running.stop()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
