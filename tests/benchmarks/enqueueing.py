"""EnqueueGeneration: rate and latency, against a gRPC echo, a commit, and a row and a publish."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.figures import Report, Target, median
from tests.benchmarks.houses import TEAMS, BenchFleet, Loader, fleet
from tests.benchmarks.plan import Bench, settled

CALLERS = (1, 8, 32)
QUICK_CALLERS = (1, 32)
BENCH_TABLE = "CREATE TABLE IF NOT EXISTS bench (id bigserial PRIMARY KEY, payload bytea NOT NULL)"
ECHO_RATIO = 0.2
P50_RATIO = 4.0
SUBJECTS = ("echo", "commit", "row + publish", "enqueue")


async def measure(bench: Bench, report: Report) -> None:
    """Adds the rows of `enqueue`."""
    async with fleet(bench.servers, "assets", "enqueue") as house, Loader() as loader:
        echo = house.run_echo()
        await loader.ask("connect", target=echo)
        house.sql("enqueue", BENCH_TABLE)
        photos = await loader.ask("upload", target=house.target("assets"), teams=TEAMS)
        asks: dict[str, dict[str, Any]] = {
            "echo": {"target": echo},
            "commit": {"dsn": house.dsn("enqueue")},
            "row + publish": {"dsn": house.dsn("enqueue"), "amqp_url": house.amqp_url},
            "enqueue": {"target": house.target("enqueue"), "photos": photos},
            "enqueue, no request_id": {
                "target": house.target("enqueue"),
                "photos": photos,
                "keyed": False,
            },
        }
        tried = bench.pick(full=CALLERS, quick=QUICK_CALLERS)
        samples: dict[str, list[dict[str, float]]] = {}
        for callers in tried:
            subjects = [*SUBJECTS, *(["enqueue, no request_id"] if callers == CALLERS[-1] else [])]
            for _ in range(bench.pick(full=4, quick=2)):
                for subject in subjects:
                    figures = await _turn(
                        house,
                        loader,
                        subject,
                        asks[subject],
                        callers=callers,
                        seconds=bench.pick(1.5, 0.5),
                    )
                    samples.setdefault(f"{subject} @{callers}", []).append(figures)
    report.samples["enqueue"] = samples
    _rows(samples, tried, report)


async def _turn(
    house: BenchFleet,
    loader: Loader,
    subject: str,
    args: dict[str, Any],
    *,
    callers: int,
    seconds: float,
) -> dict[str, float]:
    """One turn of one subject, alone: the outbox of the turn before is drained first."""
    await settled(house)
    scenario = "enqueue" if subject.startswith("enqueue") else subject.replace(" + ", "_")
    before = house.cpu()
    figures: dict[str, float] = await loader.ask(scenario, callers=callers, seconds=seconds, **args)
    after = house.cpu()
    for name in ("enqueue", "assets", "echo"):
        figures[f"{name}_cpu_ms"] = (after[name] - before[name]) * 1000 / figures["n"]
    return figures


def _rows(
    samples: dict[str, list[dict[str, float]]], tried: tuple[int, ...], report: Report
) -> None:
    def of(subject: str, callers: int, figure: str) -> float:
        return median([turn[figure] for turn in samples[f"{subject} @{callers}"]])

    for callers in tried:
        last = callers == CALLERS[-1]
        rate = of("enqueue", callers, "rate")
        report.add(
            "enqueue",
            f"rate, {callers} callers",
            rate,
            "/s",
            against=("grpc.aio echo", of("echo", callers, "rate")),
            target=Target(at_least=ECHO_RATIO) if last else None,
        )
        report.add(
            "enqueue",
            f"rate, {callers} callers",
            rate,
            "/s",
            # Stands in for Celery + row, which needs Celery: the least that any submit with a row
            # and a durable message must do, with neither a server nor checks.
            against=("row + publish", of("row + publish", callers, "rate")),
        )
        report.add(
            "enqueue",
            f"p50, {callers} callers",
            of("enqueue", callers, "p50_ms"),
            "ms",
            against=(
                "echo p50 + commit p50",
                of("echo", callers, "p50_ms") + of("commit", callers, "p50_ms"),
            ),
            target=Target(at_most=P50_RATIO) if callers == 1 else None,
        )
        report.add(
            "enqueue",
            f"p99, {callers} callers",
            of("enqueue", callers, "p99_ms"),
            "ms",
            against=("row + publish p99", of("row + publish", callers, "p99_ms")),
        )
    many = CALLERS[-1]
    report.add(
        "enqueue",
        f"rate without request_id, {many} callers",
        of("enqueue, no request_id", many, "rate"),
        "/s",
        against=("with request_id", of("enqueue", many, "rate")),
    )
    for callers in (1, many):
        for name in ("enqueue", "assets"):
            report.add(
                "enqueue",
                f"CPU of {name} per call, {callers} callers",
                of("enqueue", callers, f"{name}_cpu_ms"),
                "ms",
                against=("CPU of the echo server", of("echo", callers, "echo_cpu_ms")),
            )
