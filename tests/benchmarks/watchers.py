"""Thousands of watchers of one job: memory, CPU at rest and how long a broadcast takes."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.benchmarks import machine
from tests.benchmarks.figures import Report, Target, median, percentile
from tests.benchmarks.houses import LONG_LEASE, BenchFleet, Loader, fleet
from tests.benchmarks.plan import Bench

WATCHER_KIB = 32.0
CORE_PERCENT = 10.0
BROADCAST_MS = 500.0
IMAGES = 10
FIRST_IMAGE_EVENT = 4
TEAM = "crowd"


async def measure(bench: Bench, report: Report) -> None:
    """Adds the rows of `watchers`."""
    watchers = bench.pick(full=5000, quick=1000)
    beat = bench.pick(full=15.0, quick=3.0)
    settings = {
        "HEARTBEAT_SECONDS": str(beat),
        "MAX_STREAMS_PER_TEAM": str(watchers + 100),
        **LONG_LEASE,
    }
    async with (
        fleet(bench.servers, "assets", "enqueue", settings=settings) as house,
        Loader() as driver,
    ):
        echo = house.run_echo()
        await driver.ask("connect", target=echo)
        photos = await driver.ask("upload", target=house.target("assets"), teams=[TEAM])
        rounds = bench.pick(full=4, quick=3)
        ours = await _ours(house, driver, photos, watchers=watchers, rounds=rounds, beat=beat)
        bare = await _bare(
            house, driver, echo, watchers=watchers, rounds=rounds, size=int(ours["message_bytes"])
        )
    report.samples["watchers"] = {"watchers": watchers, "ours": ours, "bare": bare}
    _rows(watchers, beat, ours, bare, report)


async def _ours(
    house: BenchFleet,
    driver: Loader,
    photos: dict[str, str],
    *,
    watchers: int,
    rounds: int,
    beat: float,
) -> dict[str, Any]:
    """The crowd watches one job of enqueue, whose images are recorded one by one."""
    target = house.target("enqueue")
    submit = {"photos": photos, "jobs": 1, "images": IMAGES, "callers": 1}
    job = (await driver.ask("submit", target=target, **submit))[0]
    fences = await driver.ask("claim", target=target, jobs=[job])
    async with Loader() as crowd:
        pid = house.pid("enqueue")
        await crowd.ask("crowd_open", target=target, watchers=50, job=job, team=TEAM)
        await crowd.ask("crowd_close")
        before = machine.rss_bytes(pid)
        await crowd.ask("crowd_open", target=target, watchers=watchers, job=job, team=TEAM)
        grown = machine.rss_bytes(pid) - before
        cpu = machine.cpu_seconds(pid)
        await asyncio.sleep(beat)  # so that each has its heartbeat
        resting = (machine.cpu_seconds(pid) - cpu) / beat
        broadcasts, costs, size = [], [], 0
        for number in range(1, rounds + 1):
            cpu = machine.cpu_seconds(pid)
            record = {"images": number, "first": number, "rate": 100.0}
            await driver.ask("record", target=target, fences=fences, **record)
            sequence = FIRST_IMAGE_EVENT + number - 1
            heard = await crowd.ask("crowd_heard", watchers=watchers, sequence=sequence)
            begun = _committed(house, job, sequence)
            broadcasts.append(_spread([at - begun for at in heard["times"]]))
            costs.append(machine.cpu_seconds(pid) - cpu)
            size = heard["bytes"]
    return {
        "rss_bytes": grown,
        "resting_share": resting,
        "broadcasts": broadcasts,
        "cpu_seconds": costs,
        "message_bytes": size,
    }


async def _bare(
    house: BenchFleet, driver: Loader, echo: str, *, watchers: int, rounds: int, size: int
) -> dict[str, Any]:
    """The same crowd on the bare server, told messages of the same size."""
    pid = house.pid("echo")
    async with Loader() as crowd:
        await crowd.ask("crowd_open", target=echo, watchers=50)
        await crowd.ask("crowd_close")
        before = machine.rss_bytes(pid)
        await crowd.ask("crowd_open", target=echo, watchers=watchers)
        grown = machine.rss_bytes(pid) - before
        broadcasts, costs = [], []
        for _ in range(rounds):
            cpu = machine.cpu_seconds(pid)
            begun = await driver.ask("crowd_shout", target=echo, size=size)
            heard = await crowd.ask("crowd_heard", watchers=watchers)
            broadcasts.append(_spread([at - begun for at in heard["times"]]))
            costs.append(machine.cpu_seconds(pid) - cpu)
    return {"rss_bytes": grown, "broadcasts": broadcasts, "cpu_seconds": costs}


def _committed(house: BenchFleet, job: int, sequence: int) -> float:
    query = (
        "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM events "
        "WHERE job_id = %s AND sequence = %s"
    )
    return float(house.sql("enqueue", query, job, sequence)[0][0])


def _spread(seconds: list[float]) -> dict[str, float]:
    return {"p50_ms": percentile(seconds, 0.5) * 1000, "p99_ms": percentile(seconds, 0.99) * 1000}


def _rows(
    watchers: int, beat: float, ours: dict[str, Any], bare: dict[str, Any], report: Report
) -> None:
    def kib(of: dict[str, Any]) -> float:
        return float(of["rss_bytes"]) / watchers / 1024

    def broadcast(of: dict[str, Any], share: str) -> float:
        return median([turn[f"{share}_ms"] for turn in of["broadcasts"]])

    report.add(
        "watchers",
        f"memory per watcher, {watchers:,} watchers of one job",
        kib(ours),
        "KiB",
        against=("bare server stream", kib(bare)),
        target=Target(at_most=WATCHER_KIB, of_value=True),
    )
    report.add(
        "watchers",
        f"CPU at rest, a heartbeat each {beat:g} s",
        ours["resting_share"] * 100,
        "% of a core",
        target=Target(at_most=CORE_PERCENT, of_value=True),
    )
    for share in ("p50", "p99"):
        report.add(
            "watchers",
            f"broadcast {share}, {ours['message_bytes']} bytes",
            broadcast(ours, share),
            "ms",
            against=(f"bare server {share}", broadcast(bare, share)),
            target=Target(at_most=BROADCAST_MS, of_value=True) if share == "p99" else None,
        )
    report.add(
        "watchers",
        "CPU per watcher and event",
        median(ours["cpu_seconds"]) * 1e6 / watchers,
        "µs",
        against=("bare server", median(bare["cpu_seconds"]) * 1e6 / watchers),
    )
