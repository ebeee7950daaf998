"""Fifty teams with one job each, beside a team with thousands: how much longer they wait."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.figures import Report, Target, median, percentile
from tests.benchmarks.houses import BenchFleet, Loader, fleet
from tests.benchmarks.ops import WorkerDoor
from tests.benchmarks.plan import Bench, settled
from tests.support.eventually import eventually

JOBS, QUICK_JOBS = 5_000, 300
SMALL = [f"small-{number}" for number in range(50)]
BIG = "big"
IMAGE_MS = 50
SLOTS = 4
RATIO = 1.5


async def measure(bench: Bench, report: Report) -> None:
    """Adds the rows of `fairness`."""
    jobs = bench.pick(full=JOBS, quick=QUICK_JOBS)
    async with fleet(bench.servers, "assets", "enqueue") as house, Loader() as loader:
        assets = house.target("assets")
        photos = await loader.ask("upload", target=assets, teams=[*SMALL, BIG])
        door = WorkerDoor(house.run_worker("worker", delay_ms=IMAGE_MS, WORKER_SLOTS=str(SLOTS)))
        await house.wait_ready("worker")
        alone = await _waits(house, loader, door, photos)
        await door.drain()
        await _submit(house, loader, {BIG: photos[BIG]}, jobs)
        beside = await _waits(house, loader, door, photos)
        shared = "SELECT count(*) FROM jobs WHERE team = %s AND finished_at IS NOT NULL"
        meanwhile = house.sql("enqueue", shared, BIG)[0][0]
    report.samples["fairness"] = {"alone": alone, "beside": beside}
    what = f"{len(SMALL)} teams of one job beside one of {jobs:,}"
    for name, figure in (("median", median), ("longest", lambda waits: percentile(waits, 1.0))):
        report.add(
            "fairness",
            f"{what}: {name} wait for the image",
            figure(beside),
            "s",
            against=("without it", figure(alone)),
            target=Target(at_most=RATIO),
        )
    report.add("fairness", "  jobs of the large team that ended meanwhile", meanwhile, "")


async def _waits(
    house: BenchFleet, loader: Loader, door: WorkerDoor, photos: dict[str, str]
) -> list[float]:
    """Seconds from the worker's start to the end of each small team's job."""
    await door.drain()
    ids = await _submit(house, loader, {team: photos[team] for team in SMALL}, len(SMALL))
    begun: Any = house.sql("enqueue", "SELECT clock_timestamp()")[0][0]
    await door.resume()
    missing = "SELECT count(*) FROM jobs WHERE id = ANY(%s) AND finished_at IS NULL"
    await eventually(
        lambda: house.sql("enqueue", missing, ids) == [(0,)],
        timeout_seconds=300,
        what="the small teams' jobs have ended",
    )
    waited = "SELECT extract(epoch FROM finished_at - %s)::float8 FROM jobs WHERE id = ANY(%s)"
    return [row[0] for row in house.sql("enqueue", waited, begun, ids)]


async def _submit(
    house: BenchFleet, loader: Loader, photos: dict[str, str], jobs: int
) -> list[int]:
    target = house.target("enqueue")
    ids: list[int] = await loader.ask("submit", target=target, photos=photos, jobs=jobs, images=1)
    await settled(house)
    return ids
