"""A worker in a process of its own, with a memory broker that rings for one job.

`python -m tests.support.worker_process JOB_ID SETTINGS_JSON`; says on stdout what its generator
does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from contentshop.enqueue.v1 import messages_pb2
from libs.common import logs
from libs.common.broker import Message, lane_queue
from libs.common.broker_memory import MemoryBroker
from libs.common.clock import SystemClock
from libs.common.ids import SystemIds
from services.worker.app import build
from services.worker.generation import ImageRequest
from services.worker.settings import Settings
from tests.fakes.worker_world import ScriptedGenerator


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def image(index: int) -> bytes:
    say(f"called {index}")
    await asyncio.sleep(0.02)
    say(f"made {index}")
    return b"image %d" % index


def script(request: ImageRequest, _tries: int) -> Any:
    return image(request.index)


async def main(job_id: int, values: dict[str, Any]) -> None:
    clock, ids = SystemClock(), SystemIds()
    broker = MemoryBroker(clock=clock, ids=ids)
    await broker.start()
    settings = Settings(**values)
    app = build(settings, clock=clock, ids=ids, broker=broker, generator=ScriptedGenerator(script))
    await app.start()
    doorbell = messages_pb2.Doorbell(schema_version=1, job_id=job_id, dispatch_no=1)
    queue = lane_queue("image_generation.fast")
    await broker.publish([Message(queue, doorbell.SerializeToString())])
    await asyncio.sleep(60)  # it dies before


if __name__ == "__main__":
    logs.configure("worker")  # to stderr: stdout is the generator's
    asyncio.run(main(int(sys.argv[1]), json.loads(sys.argv[2])))
