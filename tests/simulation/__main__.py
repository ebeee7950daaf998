"""Runs seeds: `python -m tests.simulation --seeds 5000`, or one again: `--seed 17`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from libs.common import logs
from tests.simulation.plants import PLANTS
from tests.simulation.walk import walk

STEPS = 150
HANGS_SECONDS = 30.0


def say(line: str) -> None:
    """To whoever ran it."""
    sys.stdout.write(line + "\n")


def run(seed: int, steps: int) -> tuple[int, str, dict[str, int]]:
    """One seed; its number, what broke, and the refusals given."""
    try:
        return seed, "", asyncio.run(_in_time(walk(seed, steps)))
    except Exception:  # noqa: BLE001 - any fault is what we are looking for
        return seed, traceback.format_exc(), {}


async def _in_time(work: Coroutine[Any, Any, dict[str, int]]) -> dict[str, int]:
    """A history takes a second; one that does not end is as broken as one that ends badly."""
    async with asyncio.timeout(HANGS_SECONDS):
        return await work


def main() -> int:
    """Runs what is asked for; 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int, help="one seed again")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--plant", choices=sorted(PLANTS), help="with this fault of ours")
    parser.add_argument("--until-broken", action="store_true", help="stop at the first that fails")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    if sys.flags.hash_randomization:  # a set's order is part of the history
        os.execve(  # noqa: S606 - ourselves
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},  # noqa: TID251 - passed on whole
        )
    seeds = (
        [asked.seed] if asked.seed is not None else range(asked.first, asked.first + asked.seeds)
    )
    began, failed, refusals = time.monotonic(), 0, Counter[str]()
    logs.configure("simulation", level="error", json=False)
    with ProcessPoolExecutor(
        asked.processes, initializer=_begin, initargs=(str(asked.plant or ""),)
    ) as pool:
        for seed, broken, refused in pool.map(run, seeds, [asked.steps] * len(seeds)):
            refusals.update(refused)
            if broken:
                failed += 1
                plant = f" --plant {asked.plant}" if asked.plant else ""
                again = f"python -m tests.simulation --seed {seed} --steps {asked.steps}{plant}"
                say(f"{broken}\nagain: {again}")
                if asked.until_broken:
                    pool.shutdown(cancel_futures=True)
                    break
    seconds = time.monotonic() - began
    say(f"{len(seeds)} seeds, {failed} failed, {seconds:.0f} s; refusals: {dict(refusals)}")
    return 1 if failed else 0


def _begin(plant: str) -> None:
    if plant:
        PLANTS[plant]()
    logs.configure("simulation", level="critical", json=False)
    logging.disable()  # a pool says in full what it thinks of crashes


if __name__ == "__main__":
    sys.exit(main())
