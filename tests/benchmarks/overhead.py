"""CPU of all our processes per no-op job and per further image, and the drain rate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from tests.benchmarks.figures import Report, Target, median
from tests.benchmarks.houses import TEAMS, BenchFleet, Loader, fleet
from tests.benchmarks.ops import WorkerDoor
from tests.benchmarks.plan import Bench, all_ended, settled

IMAGES = (1, 2, 4)
OURS = ("enqueue", "assets", "packager", "worker")
JOB_MS, IMAGE_MS = 10.0, 5.0
IDLE_SECONDS = 2.0
ECHO_CALLS_SECONDS = 0.5


async def measure(bench: Bench, report: Report) -> None:
    """Adds the rows of `overhead`."""
    samples: dict[str, list[dict[str, float]]] = {}
    async with fleet(bench.servers, "assets", "enqueue", "packager") as house, Loader() as loader:
        target = house.run_worker("worker", delay_ms=0)
        echo = house.run_echo()
        await loader.ask("connect", target=echo)
        await house.wait_ready("worker")
        door = WorkerDoor(target)
        photos = await loader.ask("upload", target=house.target("assets"), teams=TEAMS)
        jobs = bench.pick(full=96, quick=32)
        await _round(
            house, loader, door, photos, jobs=16, images=4
        )  # libraries and caches get warm
        idle = house.cpu()
        await asyncio.sleep(IDLE_SECONDS)
        idle = _spent(idle, house.cpu())
        for _ in range(bench.pick(full=3, quick=1)):
            before = house.cpu()
            calls = await loader.ask("echo", target=echo, callers=8, seconds=ECHO_CALLS_SECONDS)
            spent = (house.cpu()["echo"] - before["echo"]) * 1000 / calls["n"]
            samples.setdefault("echo", []).append({"cpu_ms": spent})
            for images in IMAGES:
                figures = await _round(house, loader, door, photos, jobs=jobs, images=images)
                samples.setdefault(f"{images} images", []).append(figures)
    samples["idle"] = [{name: idle[name] / IDLE_SECONDS for name in OURS}]
    report.samples["overhead"] = {"jobs": jobs, **samples}
    _rows(samples, jobs, report)


async def _round(
    house: BenchFleet,
    loader: Loader,
    door: WorkerDoor,
    photos: dict[str, str],
    *,
    jobs: int,
    images: int,
) -> dict[str, float]:
    """Enqueues while the worker takes nothing, lets it go, and waits for the last trace."""
    await door.drain()
    await settled(house)
    before = house.cpu()
    args = {"target": house.target("enqueue"), "photos": photos}
    ids = await loader.ask("submit", jobs=jobs, images=images, **args)
    await settled(house)
    released = time.monotonic()
    await door.resume()
    await all_ended(house, timeout_seconds=45, archives=False)
    drained = time.monotonic() - released
    await all_ended(house, timeout_seconds=45)
    await settled(house)
    spent = _spent(before, house.cpu())
    query = "SELECT count(*) FROM jobs WHERE state = 'SUCCEEDED' AND id = ANY(%s)"
    assert house.sql("enqueue", query, ids) == [(jobs,)]
    return {
        **{f"{name}_cpu_ms": spent[name] * 1000 / jobs for name in OURS},
        "cpu_ms": sum(spent[name] for name in OURS) * 1000 / jobs,
        "drain_rate": jobs / drained,
    }


def _spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in before}


def _rows(samples: dict[str, list[dict[str, float]]], jobs: int, report: Report) -> None:
    def of(images: int, figure: str = "cpu_ms") -> float:
        return median([turn[figure] for turn in samples[f"{images} images"]])

    echo = median([turn["cpu_ms"] for turn in samples["echo"]])
    one, two, four = (of(images) for images in IMAGES)
    image = (four - two) / 2
    against = ("CPU of an echo, server side", echo)
    report.add(
        "overhead",
        f"CPU per job of 1 image ({jobs} jobs, {len(TEAMS)} teams)",
        one,
        "ms",
        against=against,
        target=Target(at_most=JOB_MS, of_value=True),
    )
    for name in OURS:
        report.add("overhead", f"  of it {name}", of(1, f"{name}_cpu_ms"), "ms")
    report.add(
        "overhead",
        "CPU per further image (4 images - 2 images)",
        image,
        "ms",
        against=against,
        target=Target(at_most=IMAGE_MS, of_value=True),
    )
    for name in OURS:
        figure = f"{name}_cpu_ms"
        report.add("overhead", f"  of it {name}", (of(4, figure) - of(2, figure)) / 2, "ms")
    report.add("overhead", "CPU per zip (2 images - 1 image - an image)", two - one - image, "ms")
    for images in IMAGES:
        report.add("overhead", f"drain, jobs of {images} images", of(images, "drain_rate"), "/s")
    idle = sum(samples["idle"][0].values()) * 100
    report.add("overhead", "CPU of the four at rest", idle, "% of a core")
