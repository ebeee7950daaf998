"""What `contentshop watch` does."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

from cli import progress
from cli.connection import connect
from cli.errors import ExitCode
from cli.following import follow
from cli.making import say_ending
from cli.output import Output
from cli.plain import to_plain
from cli.running import run
from contentshop.enqueue.v1 import enqueue_pb2, job_pb2


def watch(
    job_id: int, *, after: int, data: Path | None, team: str | None, output: Output
) -> ExitCode:
    """Shows a job from the cursor to its end; with JSON one line per message."""

    async def work() -> ExitCode:
        job = job_pb2.Job(id=job_id)
        async with connect(data, team) as shop:
            with progress.shown(output, job_id) as display:
                stream = follow(shop, job_id, after=after, notice=display.notice)
                async with aclosing(stream) as responses:
                    async for response in responses:
                        job = response.job
                        display.update(response)
                        output.result(_line(response))
        return say_ending(job, output)

    return run(work())


def _line(response: enqueue_pb2.WatchJobResponse) -> dict[str, Any]:
    line: dict[str, Any] = {
        "sequence": response.sequence,
        "final": response.final,
        "event": to_plain(response.event) if response.HasField("event") else None,
    }
    if response.HasField("snapshot") and response.snapshot.skipped_from:
        line["skipped_from"] = response.snapshot.skipped_from
    return {**line, "job": to_plain(response.job)}
