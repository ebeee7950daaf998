"""A packager in a process of its own, with a memory broker that brings one `job.ended`.

`python -m tests.support.packager_process ENVIRON_JSON BODY_HEX`
"""

from __future__ import annotations

import asyncio
import json
import sys

from libs.common import env, logs
from libs.common.broker import JOB_ENDED, Message
from libs.common.broker_memory import MemoryBroker
from libs.common.clock import SystemClock
from libs.common.ids import SystemIds
from services.packager.app import build
from services.packager.settings import Settings


async def main(environ: dict[str, str], body: bytes) -> None:
    broker = MemoryBroker(clock=SystemClock(), ids=SystemIds())
    await broker.start()
    app = build(env.load(Settings, environ), broker=broker)
    await app.start()
    await broker.publish([Message(JOB_ENDED, body)])
    await asyncio.sleep(100)  # it dies before


if __name__ == "__main__":
    logs.configure("packager")
    asyncio.run(main(json.loads(sys.argv[1]), bytes.fromhex(sys.argv[2])))
