"""One seed, one history of the house: a storm of calls, deaths and standstills, then healing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from contentshop.assets.v1 import assets_pb2, backend_pb2
from contentshop.enqueue.v1 import batch_pb2, enqueue_pb2, ops_pb2
from tests.simulation.house import ORPHAN_SECONDS, House
from tests.simulation.house_promises import kept_at_rest, miscounted
from tests.simulation.loop import Node
from tests.simulation.promises import broken_at_rest, broken_now, read, untold
from tests.simulation.walk import BrokenPromiseError
from tests.simulation.wires import Wires
from tests.simulation.world import TEAMS

STORM_SECONDS = 100.0
HEALING_SECONDS = 1800.0
SWEPT_SECONDS = 1.5 * ORPHAN_SECONDS
WATCHED = 0.3  # of the jobs
PHOTOS = 2  # of a team, at the beginning
LONGEST_STANDSTILL = 40.0
Act = Callable[[House, Random], Awaitable[None]]


async def walk_house(seed: int) -> tuple[Counter[str], Counter[str]]:
    """Runs one history; what was done, and what was refused.

    Raises:
        BrokenPromiseError: with each promise that does not hold.
    """
    random = Random(seed)  # noqa: S311 - dice, not secrets
    async with _open(random) as house:
        for team in TEAMS:
            await _grant(house, team, random.choice((20, 100, 1000)))
            await _settle_in(house, team)
        acts = await _storm(house, random)
        await _heal(house, random)
        state = read(house.readers["enqueue"], house.clock.now())
        broken = [*broken_at_rest(state), *untold(state, house.broker.told), *kept_at_rest(house)]
        _demand(house, broken, f"seed {seed}, at rest")
        acts["watch"] = sum(watcher.comings for watcher in house.watchers)
        acts.update({f"generator: {what}": n for what, n in house.generator.calls.items()})
        return acts, house.refusals


@asynccontextmanager
async def _open(random: Random) -> AsyncIterator[House]:
    house = House(random)
    try:
        await house.open()
        yield house
    finally:
        await house.close()


async def _storm(house: House, random: Random) -> Counter[str]:
    begun = Counter[str]()
    acts, weights = zip(*ACTS, strict=True)
    over = house.clock.monotonic() + STORM_SECONDS
    while house.clock.monotonic() < over:
        act = random.choices(acts, weights)[0]
        begun[act.__name__.strip("_")] += 1
        await act(house, random)
        await asyncio.sleep(random.choice((0.0, 0.05, 0.3, 2.0)))
        state = read(house.readers["enqueue"], house.clock.now())
        _demand(house, [*broken_now(state), *miscounted(house)], act.__name__)
    return begun


async def _heal(house: House, random: Random) -> None:
    house.broker.faulty = house.generator.faulty = house.blobs.faulty = Wires.faulty = False
    for node in house.all_nodes():
        node.go_on()
        if not node.up:
            await house.restart(node)
    house.broker.pump()
    over = house.clock.monotonic() + HEALING_SECONDS
    while house.clock.monotonic() < over:
        await asyncio.sleep(random.choice((1.0, 5.0)))
        if _at_rest(house):
            break
    # What nobody wants has its grace, and is gone soon after.
    await asyncio.sleep(SWEPT_SECONDS)


def _at_rest(house: House) -> bool:
    ((alive,),) = house.look(
        "SELECT (SELECT count(*) FROM jobs WHERE state IN ('QUEUED','RUNNING')"
        " OR archive_state = 'PENDING') + (SELECT count(*) FROM outbox)"
    )
    ((zips,),) = house.look(
        "SELECT count(*) FROM archives WHERE state = 'PENDING' OR report_at IS NOT NULL", "packager"
    )
    return not alive and not zips and house.broker.idle


def _demand(house: House, broken: Iterable[str], where: str) -> None:
    if lines := [*broken, *house.faults()]:
        raise BrokenPromiseError(f"{where}:\n  " + "\n  ".join(lines))


async def _settle_in(house: House, team: str) -> None:
    while len(_photos(house, team)) < PHOTOS:
        await house.upload(team)


def _photos(house: House, team: str) -> list[int]:
    rows = house.look(
        "SELECT id, team FROM files WHERE kind = 'UPLOAD' AND deleted_at IS NULL", "assets"
    )
    return [file_id for file_id, owner in rows if owner == team]


def _some_photo(house: House, random: Random, team: str) -> backend_pb2.ImageRef:
    return backend_pb2.ImageRef(file_id=random.choice(_photos(house, team) or [1]))


async def _grant(house: House, team: str, amount: int) -> None:
    request = ops_pb2.GrantCreditsRequest(team=team, amount=amount, request_id="first")
    for _ in range(100):
        if await house.call("", "ops", "enqueue.OpsService/GrantCredits", request) is not None:
            return


async def _enqueue(house: House, random: Random) -> None:
    team = random.choice(TEAMS)
    request = enqueue_pb2.EnqueueGenerationRequest(
        product_images=[_some_photo(house, random, team)],
        number_of_variations=random.randrange(1, 5),
        priority=random.choice((0, 0, 5)),
    )
    made = await _of_team(house, team, "EnqueueGeneration", request)
    if made is not None and random.random() < WATCHED:
        house.watch(team, made.job.id)


async def _batch(house: House, random: Random) -> None:
    team = random.choice(TEAMS)
    request = enqueue_pb2.EnqueueBatchRequest(
        name="simulated",
        variants=[
            batch_pb2.BatchVariant(product_images=[_some_photo(house, random, team)])
            for _ in range(1, random.randrange(2, 5))
        ],
        settings=batch_pb2.BatchSettings(number_of_variations=random.randrange(1, 3)),
    )
    await _of_team(house, team, "EnqueueBatch", request)


async def _cancel(house: House, random: Random) -> None:
    if jobs := house.look("SELECT id, team FROM jobs WHERE state IN ('QUEUED','RUNNING')"):
        job_id, team = random.choice(jobs)
        await _of_team(house, team, "CancelJob", enqueue_pb2.CancelJobRequest(job_id=job_id))


async def _retry(house: House, random: Random) -> None:
    if jobs := house.look("SELECT id, team FROM jobs WHERE state = 'FAILED' ORDER BY id"):
        job_id, team = random.choice(jobs)
        only_missing = random.random() < 0.5  # noqa: PLR2004
        request = enqueue_pb2.RetryJobRequest(job_id=job_id, only_missing=only_missing)
        await _of_team(house, team, "RetryJob", request)


async def _of_team(house: House, team: str, method: str, request: object) -> Any:
    return await house.call(team, "team", f"enqueue.EnqueueService/{method}", request)


async def _upload(house: House, random: Random) -> None:
    await house.upload(random.choice(TEAMS))


async def _delete(house: House, random: Random) -> None:
    """A photo, which a job may use."""
    team = random.choice(TEAMS)
    if photos := _photos(house, team):
        request = assets_pb2.DeleteFileRequest(file_id=random.choice(photos))
        await house.call(team, "team", "assets.AssetsService/DeleteFile", request)


async def _crash(house: House, random: Random) -> None:
    await _some(house, random).crash()


async def _restart(house: House, random: Random) -> None:
    if dead := [node for node in house.all_nodes() if not node.up]:
        await house.restart(random.choice(dead))


async def _stand_still(house: House, random: Random) -> None:
    """A worker becomes a zombie, perhaps for longer than its lease."""
    node = random.choice(house.workers)
    if node.up and not node.standing:
        node.stand_still()
        loop = asyncio.get_running_loop()
        loop.call_later(random.uniform(0.5, LONGEST_STANDSTILL), _go_on, node)


def _go_on(node: Node) -> None:
    if node.standing:
        node.go_on()


async def _drain(house: House, random: Random) -> None:
    """Those whom nobody calls."""
    node = random.choice([*house.workers, house.servers["packager"].node])
    if node.up and not node.standing:
        await house.drain(node)


async def _wait(_house: House, random: Random) -> None:
    await asyncio.sleep(random.uniform(1.0, 8.0))


def _some(house: House, random: Random) -> Node:
    return random.choice(house.all_nodes())


ACTS: tuple[tuple[Act, float], ...] = (
    (_enqueue, 7),
    (_batch, 1),
    (_cancel, 1.5),
    (_retry, 1),
    (_upload, 1),
    (_delete, 0.7),
    (_crash, 1.6),
    (_restart, 3),
    (_stand_still, 1),
    (_drain, 0.4),
    (_wait, 3),
)
