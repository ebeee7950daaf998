"""Chaos on real processes: `python -m tests.chaos --minutes 60 --seed 1 --json out/chaos/x.json`.

Exit code 1 when a promise broke. Needs PostgreSQL and RabbitMQ installed, as `make test` does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from libs.common import logs
from tests.chaos.house import chaos_house
from tests.chaos.run import Plan, Run
from tests.support.databases import ROOT, PostgresTemplates
from tests.support.fleet import CLOCK, Servers
from tests.support.postgres import PostgresServer
from tests.support.rabbitmq import RabbitServer
from tests.support.seaweed import SeaweedServer

SHOWN_CHARS = 4_000  # of each broken promise


def say(line: str) -> None:
    """To whoever ran it, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextmanager
def own_servers() -> Iterator[Servers]:
    """PostgreSQL, RabbitMQ and S3 of this run alone."""
    seaweed = SeaweedServer()
    try:
        seaweed.start()
        with PostgresServer(fsync=False) as postgres, RabbitServer() as rabbit:
            yield Servers(postgres, PostgresTemplates(postgres), rabbit, seaweed)
    finally:
        seaweed.close()


async def chaos(servers: Servers, plan: Plan, seed: int) -> dict[str, Any]:
    """One run; cancelled by SIGTERM and Ctrl-C, and then everything is ended too."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    async with chaos_house(servers, random.Random(seed)) as house:  # noqa: S311 - to be repeated
        figures = await Run(house, plan, say)()
        if figures["broken"]:
            kept = Path(tempfile.mkdtemp(prefix="contentshop-chaos-logs-"))
            for name, text in house.fleet.new_logs("kept"):
                (kept / f"{name}.log").write_text(text)
            say(f"logs: {kept}")
        return figures


def facts(seed: int) -> dict[str, Any]:
    """Where and when."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - the developer's own git
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "seed": seed,
        "at": CLOCK.now().isoformat(timespec="seconds"),
        "commit": commit,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def main() -> int:
    """Runs what is asked for; 1 when a promise broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs-per-minute", type=float, default=Plan.jobs_per_minute)
    parser.add_argument("--json", type=Path, help="where the figures go; out/chaos/<time>.json")
    asked = parser.parse_args()
    logs.configure("chaos", level="error", json=False)
    figures = facts(asked.seed)
    stamp = figures["at"].replace(":", "").replace("+0000", "Z")
    path = asked.json or ROOT / "out" / "chaos" / f"{stamp}.json"
    plan = Plan(minutes=asked.minutes, jobs_per_minute=asked.jobs_per_minute)
    with own_servers() as servers:
        say(f"chaos for {asked.minutes:g} minutes with seed {asked.seed}; figures: {path}")
        try:
            figures |= asyncio.run(chaos(servers, plan, asked.seed))
        except asyncio.CancelledError:
            say("stopped; everything is ended")
            return 130
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, default=str) + "\n")
    broken = figures.pop("broken")
    say(json.dumps(figures, indent=1, default=str))
    for line in broken:
        say(f"BROKEN: {line[:SHOWN_CHARS]}")
    say(f"{len(broken)} broken promises")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
