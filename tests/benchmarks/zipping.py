"""A real zip build against a plain copy of the same bytes, on the embedded store and on S3."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from tests.benchmarks import machine
from tests.benchmarks.figures import Report, Target, median
from tests.benchmarks.houses import LONG_LEASE, BenchFleet, Loader, fleet
from tests.benchmarks.plan import Bench
from tests.support.eventually import eventually

TEAM = "zips"
MIB = 1024 * 1024
COPY_RATIO = 0.8
FIRST_BYTE_MS = 100.0
BUILD_SECONDS = 120.0
# An archive is put back to be built again: storing the images anew would take longer than zipping.
AGAIN = (
    "UPDATE archives SET state = 'PENDING', file_id = NULL, size_bytes = NULL, finished_at = NULL,"
    " attempts = 0, try_at = now(), lease_until = NULL, written_key = NULL, written_bytes = NULL,"
    " written_sha256 = NULL, written_crc32 = NULL, report_at = NULL WHERE job_id = %s"
)


async def measure(bench: Bench, report: Report) -> None:
    """Adds the rows of `zip`."""
    await _store(bench, report, "file", bench.pick(full=1024, quick=256))
    await _store(bench, report, "s3", bench.pick(full=1024, quick=128))


async def _store(bench: Bench, report: Report, store: str, mebibytes: int) -> None:
    s3 = store == "s3"
    settings = {"LOG_LEVEL": "debug", "PACKAGER_SWEEP_SECONDS": "0.1", **LONG_LEASE}
    services = ("assets", "enqueue", "packager")
    async with (
        fleet(bench.servers, *services, s3=s3, settings=settings) as house,
        Loader() as loader,
    ):
        photo = (await loader.ask("upload", target=house.target("assets"), teams=[TEAM]))[TEAM]
        await _job(house, loader, photo, 2, MIB)  # libraries get loaded
        images = bench.pick(full=10, quick=8)
        size = mebibytes * MIB // images
        pid = house.pid("packager")
        machine.forget_peak(pid)
        resident = machine.rss_bytes(pid)
        job = await _job(house, loader, photo, images, size)
        growth = machine.peak_rss_bytes(pid) - resident
        builds, copies, downloads, cpu = [_build(house)], [], [], []
        total = house.sql("packager", "SELECT size_bytes FROM archives WHERE job_id = %s", job)
        total_bytes = int(total[0][0])
        for _ in range(bench.pick(full=3, quick=1)):
            copies.append(
                await _copy(house, loader, store=store, least=size // 2, most=total_bytes)
            )
            before = machine.cpu_seconds(pid)
            house.sql("packager", AGAIN, job)
            await _ready(house, job)
            builds.append(_build(house))
            cpu.append(machine.cpu_seconds(pid) - before)
            target = house.target("packager")
            download = await loader.ask("first_byte", target=target, team=TEAM, job=job)
            downloads.append(download)
    report.samples[f"zip on {store}"] = {
        "bytes": total_bytes,
        "builds": builds,
        "copies": copies,
        "downloads": downloads,
        "peak_growth_bytes": growth,
        "cpu_seconds": cpu,
    }
    _rows(store, total_bytes, report)


async def _job(house: BenchFleet, loader: Loader, photo: str, images: int, size: int) -> int:
    """A finished job of big images, zipped."""
    job: int = await loader.ask(
        "make_big_job",
        enqueue=house.target("enqueue"),
        assets=house.target("assets"),
        team=TEAM,
        photo=photo,
        images=images,
        image_bytes=size,
    )
    await _ready(house, job)
    return job


async def _ready(house: BenchFleet, job: int) -> None:
    query = "SELECT state FROM archives WHERE job_id = %s"
    await eventually(
        lambda: house.sql("packager", query, job) == [("READY",)],
        timeout_seconds=BUILD_SECONDS,
        what="the zip is ready",
    )


def _build(house: BenchFleet) -> float:
    """Seconds of the last build, by the packager's own log."""
    at: dict[str, datetime] = {}
    for line in house.log("packager").splitlines():
        if '"build.' in line:
            said = json.loads(line)
            at[said["event"]] = datetime.fromisoformat(said["timestamp"])
    took: timedelta = at["build.ready"] - at["build.begun"]
    return took.total_seconds()


async def _copy(house: BenchFleet, loader: Loader, *, store: str, least: int, most: int) -> float:
    """Seconds of a plain copy of the images' blobs into one file, or one object."""
    if store == "file":
        blobs = [path for path in (house.folder / "blobs").rglob("*") if path.is_file()]
        found = [p for p in blobs if least < p.stat().st_size < most]
        args = {"sources": [str(path) for path in found], "target": str(house.folder / "copy")}
        return float(await loader.ask("copy_files", **args))
    client = house.servers.seaweed.client()
    objects = [
        each
        for each in client.list_objects(house.bucket, recursive=True)
        if each.size and least < each.size < most
    ]
    names = [str(each.object_name) for each in objects]
    seconds: float = await loader.ask(
        "copy_s3",
        sources=[client.presigned_get_object(house.bucket, name) for name in names],
        target=client.presigned_put_object(house.bucket, "bench-copy"),
        size=sum(each.size or 0 for each in objects),
    )
    client.remove_object(house.bucket, "bench-copy")
    return seconds


def _rows(store: str, total: int, report: Report) -> None:
    samples: dict[str, Any] = report.samples[f"zip on {store}"]
    megabytes = total / 1e6
    where = "embedded store" if store == "file" else "S3"
    report.add(
        "zip",
        f"build, {megabytes:,.0f} MB, {where}",
        megabytes / median(samples["builds"]),
        "MB/s",
        against=("plain copy", megabytes / median(samples["copies"])),
        target=Target(at_least=COPY_RATIO),
    )
    report.add(
        "zip",
        f"  the packager's CPU per GB, {where}",
        median(samples["cpu_seconds"]) / (total / 1e9),
        "s",
    )
    growth = samples["peak_growth_bytes"] / MIB
    report.add("zip", f"  the packager's peak growth, {where}", growth, "MiB")
    firsts = [download["first_seconds"] * 1000 for download in samples["downloads"]]
    report.add(
        "zip",
        f"DownloadArchive: first byte, {where}",
        median(firsts),
        "ms",
        target=Target(at_most=FIRST_BYTE_MS, of_value=True),
    )
    rates = [d["bytes"] / d["seconds"] / 1e6 for d in samples["downloads"]]
    report.add("zip", f"  and its rate, {where}", median(rates), "MB/s")
