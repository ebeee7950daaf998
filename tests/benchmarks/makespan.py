"""Jobs of four images at 50 ms each, against the ideal; and with a worker killed in the middle."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import Any

from tests.benchmarks.figures import Report, Target, median
from tests.benchmarks.houses import TEAMS, BenchFleet, Loader, fleet
from tests.benchmarks.ops import WorkerDoor
from tests.benchmarks.plan import Bench, all_ended, settled
from tests.support.eventually import eventually

IMAGES = 4
IMAGE_MS = 50
PLACES = 16
SLOTS = (4, 8)  # jobs at once: the default, and enough to fill the places between two jobs
LEASE_SECONDS = 3
TIMES_IDEAL = 1.3


async def measure(bench: Bench, report: Report) -> None:
    """Adds the rows of `makespan`."""
    jobs = bench.pick(full=200, quick=60)
    tried = bench.pick(full=SLOTS, quick=SLOTS[1:])
    samples: dict[str, list[dict[str, Any]]] = {}
    settings = {"LEASE_SECONDS": str(LEASE_SECONDS), "WORKER_RENEW_SECONDS": "1"}
    services = ("assets", "enqueue", "packager")
    async with fleet(bench.servers, *services, settings=settings) as house, Loader() as loader:
        photos = await loader.ask("upload", target=house.target("assets"), teams=TEAMS)
        for turn in range(bench.pick(full=2, quick=1)):
            for slots in tried:
                figures = await _whole(
                    house, loader, photos, jobs=jobs, slots=slots, name=f"worker-{turn}-{slots}"
                )
                samples.setdefault(f"{slots} slots", []).append(figures)
        killed = await _killed(house, loader, photos, jobs)
    report.samples["makespan"] = {"jobs": jobs, **samples, "killed": killed}
    ideal = jobs * IMAGES * IMAGE_MS / 1000 / PLACES
    for slots in tried:
        report.add(
            "makespan",
            f"{jobs} jobs x {IMAGES} x {IMAGE_MS} ms, {len(TEAMS)} teams, 1 worker, {slots} slots",
            median([turn["seconds"] for turn in samples[f"{slots} slots"]]),
            "s",
            against=(f"ideal with {PLACES} places", ideal),
            target=Target(at_most=TIMES_IDEAL),
        )
        busy = median([turn["cpu_seconds"] for turn in samples[f"{slots} slots"]])
        report.add("makespan", f"  CPU of ours, {slots} slots", busy, "s")
    zero = Target(at_most=0, of_value=True)
    what = f"kill -9 of 1 of 2 workers in the middle, lease {LEASE_SECONDS} s"
    report.add("makespan", f"{what}: jobs lost", killed["lost"], "", target=zero)
    report.add(
        "makespan",
        "  images made twice; the most may be those in flight at the kill",
        killed["twice"],
        "",
        target=Target(at_most=killed["in_flight"], of_value=True),
    )
    report.add("makespan", "  its jobs taken up again after", killed["back_after_seconds"], "s")
    report.add("makespan", "  all done after", killed["seconds"], "s", against=("ideal", ideal / 2))


async def _whole(
    house: BenchFleet,
    loader: Loader,
    photos: dict[str, str],
    *,
    jobs: int,
    slots: int,
    name: str,
) -> dict[str, Any]:
    """All jobs wait already when the one worker is let go."""
    door = await _worker(house, name, slots)
    await _submit(house, loader, photos, jobs)
    before = sum(house.cpu().values())
    begun = time.monotonic()
    await door.resume()
    await all_ended(house, timeout_seconds=45, archives=False)
    seconds = time.monotonic() - begun
    spent = sum(house.cpu().values()) - before
    await all_ended(house, timeout_seconds=45)
    await house.terminate(name)
    return {"seconds": seconds, "cpu_seconds": spent}


async def _killed(
    house: BenchFleet, loader: Loader, photos: dict[str, str], jobs: int
) -> dict[str, Any]:
    """Two workers, one of which is killed when half of the images are made."""
    doors = [await _worker(house, name, SLOTS[0]) for name in ("doomed", "staying")]
    ids = await _submit(house, loader, photos, jobs)
    made = "SELECT count(*) FROM images WHERE state = 'DONE' AND job_id = ANY(%s)"
    before = len(house.calls())
    begun = time.monotonic()
    for door in doors:
        await door.resume()

    def half_done() -> bool:
        return int(house.sql("enqueue", made, ids)[0][0]) >= jobs * IMAGES // 2

    await eventually(half_done, timeout_seconds=45, what="half of the images are made")
    os.kill(house.pid("doomed"), signal.SIGKILL)
    killed_at = house.sql("enqueue", "SELECT clock_timestamp()")[0][0]
    orphans = "SELECT id FROM jobs WHERE state = 'RUNNING' AND worker = 'doomed'"
    orphaned = [row[0] for row in house.sql("enqueue", orphans)]
    missing = "SELECT count(*) FROM images WHERE state = 'PENDING' AND job_id = ANY(%s)"
    in_flight = house.sql("enqueue", missing, orphaned)[0][0]
    await all_ended(house, timeout_seconds=180, archives=False)
    seconds = time.monotonic() - begun
    back = (
        "SELECT coalesce(extract(epoch FROM min(at) - %s), 0)::float8 FROM events "
        "WHERE kind = 'STARTED' AND at > %s AND job_id = ANY(%s)"
    )
    succeeded = "SELECT count(*) FROM jobs WHERE state = 'SUCCEEDED' AND id = ANY(%s)"
    calls = Counter(house.calls()[before:])
    return {
        "seconds": seconds,
        "orphaned_jobs": len(orphaned),
        "in_flight": in_flight,
        "lost": jobs - house.sql("enqueue", succeeded, ids)[0][0],
        "twice": sum(calls.values()) - len(calls),
        "back_after_seconds": house.sql("enqueue", back, killed_at, killed_at, orphaned)[0][0],
    }


async def _worker(house: BenchFleet, name: str, slots: int) -> WorkerDoor:
    """A worker that takes nothing yet."""
    target = house.run_worker(
        name, delay_ms=IMAGE_MS, WORKER_SLOTS=str(slots), WORKER_IMAGES_AT_ONCE=str(PLACES)
    )
    await house.wait_ready(name)
    door = WorkerDoor(target)
    await door.drain()
    return door


async def _submit(
    house: BenchFleet, loader: Loader, photos: dict[str, str], jobs: int
) -> list[int]:
    args = {"target": house.target("enqueue"), "photos": photos}
    ids: list[int] = await loader.ask("submit", jobs=jobs, images=IMAGES, **args)
    await settled(house)
    return ids
