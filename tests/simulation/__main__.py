"""Runs seeds: `python -m tests.simulation --seeds 5000`, or `--minutes 60`, or one: `--seed 17`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
import time
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Coroutine, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, count, islice, takewhile
from multiprocessing import get_context
from typing import Any, TypeVar

from libs.common import logs
from tests.simulation.house_plants import HOUSE_PLANTS
from tests.simulation.house_walk import walk_house
from tests.simulation.loop import VirtualLoop
from tests.simulation.plants import PLANTS
from tests.simulation.walk import walk
from tests.simulation.world import template
from tests.support.databases import SERVICES

T = TypeVar("T")

STEPS = 150
AHEAD = 4
SEEDS_PER_POOL = 400
REPORT_EVERY = 100
COLLECT_EVERY = 20  # see _begin
HANGS_SECONDS = 300.0  # a busy machine is no hang


def say(line: str) -> None:
    """To whoever ran it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Told:
    """One seed: what broke, how often which act was begun and which refusal given."""

    seed: int
    broken: str = ""
    acts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)


def run(seed: int, steps: int, *, house: bool) -> Told:
    """One seed."""
    try:
        if house:
            with asyncio.Runner(loop_factory=VirtualLoop) as runner:
                acts, refusals = runner.run(walk_house(seed))
        else:
            acts, refusals = asyncio.run(_in_time(walk(seed, steps)))
    except Exception:  # noqa: BLE001 - any fault is what we are looking for
        return Told(seed, traceback.format_exc())
    if seed % COLLECT_EVERY == 0:
        gc.collect()
    return Told(seed, "", acts, refusals)


async def _in_time(work: Coroutine[Any, Any, T]) -> T:
    """A history takes a second; one that does not end is as broken as one that ends badly."""
    async with asyncio.timeout(HANGS_SECONDS):
        return await work


def main() -> int:
    """Runs what is asked for; 1 when a seed failed."""
    asked = _asked()
    if sys.flags.hash_randomization:  # a set's order is part of the history
        os.execve(  # noqa: S606 - ourselves
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},  # noqa: TID251 - passed on whole
        )
    began, ended, failed = time.monotonic(), 0, 0
    acts, refusals = Counter[str](), Counter[str]()
    _begin(str(asked.plant or ""))
    with closing(_in_turn(asked)) as results:
        for told in results:
            ended += 1
            acts.update(told.acts)
            refusals.update(told.refusals)
            if told.broken:
                failed += 1
                say(f"{told.broken}\nagain: python -m tests.simulation {_again(asked, told.seed)}")
                if asked.until_broken:
                    break
            if ended % REPORT_EVERY == 0:
                seconds = time.monotonic() - began
                say(f"{ended} seeds, {failed} failed, {ended / seconds:.1f} a second")
    seconds = time.monotonic() - began
    say(f"acts: {dict(acts.most_common())}\nrefusals: {dict(refusals.most_common())}")
    say(f"{ended} seeds, {failed} failed, {seconds:.0f} s")
    return 1 if failed else 0


def _again(asked: argparse.Namespace, seed: int) -> str:
    plant = f" --plant {asked.plant}" if asked.plant else ""
    return f"--seed {seed}{plant} " + ("--house" if asked.house else f"--steps {asked.steps}")


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many, from --first on")
    parser.add_argument("--minutes", type=float, help="for so long, however many seeds that is")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int, help="one seed again")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument(
        "--plant", choices=sorted(PLANTS | HOUSE_PLANTS), help="with this fault of ours"
    )
    parser.add_argument(
        "--house", action="store_true", help="all services as they are; see house.py"
    )
    parser.add_argument("--until-broken", action="store_true", help="stop at the first that fails")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def _seeds(asked: argparse.Namespace) -> Iterator[int]:
    if asked.seed is not None:
        yield asked.seed
    elif asked.minutes is None:
        yield from range(asked.first, asked.first + asked.seeds)
    else:
        over = time.monotonic() + asked.minutes * 60
        yield from takewhile(lambda _: time.monotonic() < over, count(asked.first))


def _in_turn(asked: argparse.Namespace) -> Generator[Told]:
    """The seeds' results in order, a few seeds ahead; no seed is begun once it is closed.

    New processes from time to time: of each seed, with its engine and its loop, about a megabyte
    stays behind, and thousands would slow down. (What one house keeps, `make soak` measures.)
    """
    seeds = _seeds(asked)
    while (first := next(seeds, None)) is not None:
        # Forked: the plant and the migrated template come with it.
        pool = ProcessPoolExecutor(asked.processes, mp_context=get_context("fork"))
        try:
            waiting: deque[Future[Told]] = deque()
            for seed in chain([first], islice(seeds, SEEDS_PER_POOL - 1)):
                waiting.append(pool.submit(run, seed, asked.steps, house=asked.house))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(plant: str) -> None:
    if plant:
        (PLANTS | HOUSE_PLANTS)[plant]()
    for service in SERVICES:
        template(service)
    logs.configure("simulation", level="critical", json=False)
    logging.disable()  # a pool says in full what it thinks of crashes
    warnings.simplefilter("ignore")  # of what a crash leaves unawaited
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)  # a seed is short; its garbage goes after every few


if __name__ == "__main__":
    sys.exit(main())
