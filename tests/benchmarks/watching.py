"""From a commit to its watchers, here and on another replica; and the bare ways to tell them."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.enqueueing import BENCH_TABLE
from tests.benchmarks.figures import Report, Target, median, percentile
from tests.benchmarks.houses import LONG_LEASE, BenchFleet, Loader, fleet
from tests.benchmarks.load.hints import WAYS
from tests.benchmarks.plan import Bench

JOBS = 20
IMAGES = 10
RATE = 200.0
TIMES_COMMIT = 2.0
P99_MS = 10.0
FIRST_IMAGE_EVENT = 4  # after QUEUED, ADMITTED and STARTED
LAST_IMAGE_EVENT = FIRST_IMAGE_EVENT + IMAGES - 1
HINTS_SECONDS = 1.0
COMMIT_SECONDS = 0.3


async def measure(bench: Bench, report: Report) -> None:
    """Adds the rows of `watch`."""
    samples: dict[str, list[dict[str, float]]] = {}
    async with (
        fleet(bench.servers, "assets", "enqueue", settings=LONG_LEASE) as house,
        Loader() as driver,
        Loader() as here,
        Loader() as there,
    ):
        other = house.run("enqueue-2", "enqueue")
        await house.wait_ready("enqueue-2")
        house.sql("enqueue", BENCH_TABLE)
        teams = [f"watch-{number}" for number in range(JOBS)]
        photos = await driver.ask("upload", target=house.target("assets"), teams=teams)
        readers = {"same replica": (here, house.target("enqueue")), "other": (there, other)}
        for _ in range(bench.pick(full=6, quick=2)):
            commit = await driver.ask(
                "commit", dsn=house.dsn("enqueue"), callers=1, seconds=COMMIT_SECONDS
            )
            samples.setdefault("commit", []).append(commit)
            for name, figures in (await _wave(house, driver, readers, photos)).items():
                samples.setdefault(name, []).append(figures)
            for way in WAYS:
                figures = await driver.ask(
                    "hints",
                    dsn=house.dsn("enqueue"),
                    amqp_url=house.amqp_url,
                    way=way,
                    rate=RATE,
                    seconds=HINTS_SECONDS,
                )
                samples.setdefault(way, []).append(figures)
    report.samples["watch"] = samples
    _rows(samples, report)


async def _wave(
    house: BenchFleet,
    driver: Loader,
    readers: dict[str, tuple[Loader, str]],
    photos: dict[str, str],
) -> dict[str, dict[str, float]]:
    """Twenty jobs, watched on both replicas, whose images are recorded at the rate."""
    target = house.target("enqueue")
    jobs: dict[str, str] = {}
    for team, photo in photos.items():
        ids = await driver.ask(
            "submit", target=target, photos={team: photo}, jobs=1, images=IMAGES, callers=1
        )
        jobs[str(ids[0])] = team
    fences = await driver.ask("claim", target=target, jobs=[int(job) for job in jobs])
    events = {"first": FIRST_IMAGE_EVENT, "last": LAST_IMAGE_EVENT}
    for loader, replica in readers.values():
        await loader.ask("watch_jobs", target=replica, teams=jobs, **events)
    drive = {"images": IMAGES, "first": 1, "rate": RATE}
    figures = {"record": await driver.ask("record", target=target, fences=fences, **drive)}
    committed = _commit_times(house, [int(job) for job in jobs])
    for name, (loader, _) in readers.items():
        seen = await loader.ask("watched")
        took = [(at - committed[job, sequence]) * 1000 for job, sequence, at in seen]
        assert len(took) == JOBS * IMAGES, (name, len(took))
        figures[name] = {
            "n": len(took),
            "p50_ms": percentile(took, 0.5),
            "p99_ms": percentile(took, 0.99),
        }
    await driver.ask("finish", target=target, fences=fences)
    return figures


def _commit_times(house: BenchFleet, jobs: list[int]) -> dict[tuple[int, int], float]:
    """When the transaction of each event began to commit; its fsync comes after that."""
    query = (
        "SELECT job_id, sequence, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 "
        "FROM events WHERE job_id = ANY(%s)"
    )
    return {(job, sequence): at for job, sequence, at in house.sql("enqueue", query, jobs)}


def _rows(samples: dict[str, Any], report: Report) -> None:
    def of(name: str, figure: str) -> float:
        return median([turn[figure] for turn in samples[name]])

    commit = ("one-row commit p50", of("commit", "p50_ms"))
    for name in ("same replica", "other"):
        what = "same replica" if name == "same replica" else "another replica"
        report.add(
            "watch",
            f"COMMIT → watcher p50, {what}, {RATE:.0f} events/s, {JOBS} jobs",
            of(name, "p50_ms"),
            "ms",
            against=commit,
            target=Target(at_most=TIMES_COMMIT),
        )
        report.add(
            "watch",
            f"COMMIT → watcher p50, {what}",
            of(name, "p50_ms"),
            "ms",
            against=("bare commit + NOTIFY → heard p50", of(WAYS[0], "p50_ms")),
        )
        report.add(
            "watch",
            f"COMMIT → watcher p99, {what}",
            of(name, "p99_ms"),
            "ms",
            against=("one-row commit p99", of("commit", "p99_ms")),
            target=Target(at_most=P99_MS, of_value=True),
        )
    record = of("record", "p50_ms")
    report.add("watch", "RecordImage p50 at that rate", record, "ms", against=commit)
    for way in WAYS:
        for share in ("p50", "p99"):
            report.add(
                "watch",
                f"bare: insert → {way} → heard, {share}, {RATE:.0f}/s",
                of(way, f"{share}_ms"),
                "ms",
                against=(f"{WAYS[0]} {share}", of(WAYS[0], f"{share}_ms")),
            )
