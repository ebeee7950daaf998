"""`python -m tests.benchmarks.load`: a JSON line in, a JSON line out, until stdin ends."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from libs.common import logs
from tests.benchmarks.load import acting, calls, copying, hints, watching
from tests.benchmarks.load.tools import Tools

_ALL: tuple[Callable[..., Awaitable[Any]], ...] = (
    *(calls.upload, calls.enqueue, calls.echo, calls.commit, calls.row_publish, calls.submit),
    calls.enqueue_batches,
    *(acting.claim, acting.record, acting.finish, acting.make_big_job),
    *(watching.watch_jobs, watching.watched, watching.crowd_open, watching.crowd_shout),
    *(watching.crowd_heard, watching.crowd_close, watching.connect),
    *(hints.hints, copying.copy_files, copying.copy_s3, copying.first_byte),
)
SCENARIOS = {scenario.__name__: scenario for scenario in _ALL}


async def serve() -> None:
    logs.configure("load", level="warning", json=False)  # to stderr: stdout is the answers'
    tools = Tools()
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            answer["result"] = await SCENARIOS[asked.pop("scenario")](tools, **asked)
        except Exception:  # noqa: BLE001 - the one who asked raises it
            answer["error"] = traceback.format_exc()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    await tools.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
