"""One seed, one history: everybody's acts at once with crashes between, then healing, then rest."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any

from libs.common.broker import JOB_ENDED, LANES
from tests.simulation.promises import broken_at_rest, broken_now, read, untold
from tests.simulation.world import TEAMS, PlayedWorker, World

LANE = LANES[0]
DUTIES = ("relay", "reaper", "sweep", "readmit", "archives")
HEALING_ROUNDS = 200
MOST_AT_ONCE = 8
LOOK_EVERY = 3

Act = Callable[[World, Random], Awaitable[None]]


class BrokenPromiseError(AssertionError):
    """A seed whose history breaks a promise."""


async def walk(seed: int, steps: int) -> tuple[Counter[str], Counter[str]]:
    """Runs one history; how often which act was begun, and which refusal given.

    Raises:
        BrokenPromiseError: with each promise that does not hold.
    """
    random = Random(seed)  # noqa: S311 - dice, not secrets
    async with World(random) as world:
        for team in TEAMS:
            await world.grant(team, random.choice((5, 30, 1000)), "first")
        acts = await _storm(world, random, steps)
        await heal(world, random)
        state = read(world.reader, world.clock.now())
        _demand(broken_at_rest(state), f"seed {seed}, at rest")
        _demand(untold(state, world.broker.told), f"seed {seed}, at rest")
        return acts, Counter(world.refusals)


async def _storm(world: World, random: Random, steps: int) -> Counter[str]:
    begun = Counter[str]()
    running: list[asyncio.Task[None]] = []
    acts, weights = zip(*ACTS, strict=True)
    for step in range(steps):
        running = [task for task in running if not _ended(task)]
        if len(running) < MOST_AT_ONCE:
            act = random.choices(acts, weights)[0]
            begun[act.__name__.strip("_")] += 1
            coroutine: Coroutine[Any, Any, None] = act(world, random)
            # Owned by this list, which outlives none of them.
            running.append(asyncio.create_task(coroutine))  # noqa: TID251
        for _ in range(random.choice((0, 1, 3, 20, 80))):
            await asyncio.sleep(0)
        if random.random() < 0.02:  # noqa: PLR2004 - enqueue dies, in the middle of everything
            begun["crash"] += 1
            await world.crash()
            running = []
        if step % LOOK_EVERY == 0:
            _demand(broken_now(read(world.reader, world.clock.now())), f"step {step}")
    for task in running:
        await task
    return begun


def _ended(task: asyncio.Task[None]) -> bool:
    if task.done() and not task.cancelled():
        task.result()  # a fault that is no typed refusal is a bug
    return task.done()


async def heal(world: World, random: Random) -> None:
    """No more faults: everything must come to its end by itself."""
    world.broker.faulty = False
    for _ in range(HEALING_ROUNDS):
        for name in DUTIES:
            await world.duty(name)
        for worker in world.workers:
            while world.broker.queues[f"jobs.{LANE}"] and len(worker.claims) < 4:  # noqa: PLR2004
                await world.take_doorbell(worker, LANE)
            for job_id in list(worker.claims):
                while job_id in worker.claims:
                    await world.work(worker, job_id, luck=1.0)
        while world.broker.queues[JOB_ENDED]:
            await world.packager(fails=False)
        if not world.alive():
            return
        await _seconds(world, random.choice((1, 10, 40)))


async def _seconds(world: World, seconds: int) -> None:
    # One by one: a reaper that sees a leap believes that itself was away.
    for _ in range(seconds):
        world.clock.move(1.0)
        await world.duty("reaper")


def _demand(broken: Any, where: str) -> None:
    lines = list(broken)
    if lines:
        raise BrokenPromiseError(f"{where}:\n  " + "\n  ".join(lines))


def _worker(world: World, random: Random) -> PlayedWorker:
    return random.choice(world.workers)


async def _enqueue(world: World, random: Random) -> None:
    request_id = random.choice(("", f"r{random.randrange(6)}"))
    count = random.randrange(1, 5) if not request_id else 2
    priority = random.choice((0, 0, 5)) if not request_id else 0
    await world.enqueue(random.choice(TEAMS), count, priority, request_id)


async def _cancel(world: World, random: Random) -> None:
    if (job := world.some_job(random)) is not None:
        await world.cancel(job[1], job[0])


async def _take(world: World, random: Random) -> None:
    await world.take_doorbell(_worker(world, random), LANE)


async def _work(world: World, random: Random) -> None:
    worker = _worker(world, random)
    if worker.claims:
        await world.work(worker, random.choice(list(worker.claims)), random.random())


async def _renew(world: World, random: Random) -> None:
    await world.renew(_worker(world, random))


async def _kill_worker(world: World, random: Random) -> None:
    worker = _worker(world, random)
    if random.random() < 0.5:  # noqa: PLR2004
        await world.begin(worker)
    else:
        worker.claims.clear()


async def _pass_time(world: World, random: Random) -> None:
    await _seconds(world, random.choice((1, 2, 6, 20)))


async def _clean_up(world: World, random: Random) -> None:
    world.clock.move(random.choice((1, 10, 200)) * 86_400.0)
    await world.clean_up()


async def _duty(world: World, random: Random) -> None:
    await world.duty(random.choice(DUTIES))


async def _relay(world: World, _random: Random) -> None:
    await world.duty("relay")


async def _packager(world: World, random: Random) -> None:
    await world.packager(fails=random.random() < 0.3)  # noqa: PLR2004


async def _retry(world: World, random: Random) -> None:
    if (job := world.some_job(random, "FAILED")) is not None:
        await world.retry(job[1], job[0], only_missing=random.random() < 0.5)  # noqa: PLR2004


async def _batch(world: World, random: Random) -> None:
    await world.batch(random.choice(TEAMS), random.randrange(1, 5), random.randrange(1, 3))


async def _cancel_batch(world: World, random: Random) -> None:
    if (batch := world.some_batch(random)) is not None:
        await world.cancel_batch(batch[1], batch[0])


async def _retry_batch(world: World, random: Random) -> None:
    if (batch := world.some_batch(random)) is not None:
        await world.retry_batch(batch[1], batch[0])


async def _grant(world: World, random: Random) -> None:
    await world.grant(random.choice(TEAMS), random.randrange(1, 6), f"g{random.randrange(4)}")


ACTS: tuple[tuple[Act, float], ...] = (
    (_enqueue, 4),
    (_cancel, 1),
    (_take, 6),
    (_work, 14),
    (_renew, 3),
    (_kill_worker, 0.7),
    (_pass_time, 3),
    (_duty, 4),
    (_relay, 5),
    (_packager, 1.5),
    (_retry, 1),
    (_batch, 1),
    (_cancel_batch, 0.3),
    (_retry_batch, 0.5),
    (_grant, 0.7),
    (_clean_up, 0.3),
)
