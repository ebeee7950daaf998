"""EnqueueBatch: a batch of 100 variants, against a batch of one and against a single job."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.figures import Report, Target, median
from tests.benchmarks.houses import TEAMS, Loader, fleet
from tests.benchmarks.plan import Bench, settled

VARIANTS = 100
JOB_RATIO = 5.0


async def measure(bench: Bench, report: Report) -> None:
    """Adds the rows of `batches`."""
    async with fleet(bench.servers, "assets", "enqueue") as house, Loader() as loader:
        target = house.target("enqueue")
        photos = await loader.ask("upload", target=house.target("assets"), teams=TEAMS)
        asks: dict[str, dict[str, Any]] = {
            "job": {"scenario": "enqueue"},
            "batch of 1": {"scenario": "enqueue_batches", "variants": 1},
            "batch": {"scenario": "enqueue_batches", "variants": VARIANTS},
        }
        samples: dict[str, list[dict[str, float]]] = {name: [] for name in asks}
        for _ in range(bench.pick(full=4, quick=2)):
            for name, ask in asks.items():
                await settled(house)
                asked = {**ask, "target": target, "photos": photos}
                seconds = bench.pick(1.5, 0.5)
                figures = await loader.ask(
                    asked.pop("scenario"), callers=1, seconds=seconds, **asked
                )
                samples[name].append(figures)
    report.samples["batches"] = samples

    def p50(name: str) -> float:
        return median([turn["p50_ms"] for turn in samples[name]])

    report.add(
        "batches",
        f"p50 of a batch of {VARIANTS} variants, 1 caller",
        p50("batch"),
        "ms",
        against=("p50 of one job", p50("job")),
        target=Target(at_most=JOB_RATIO),
    )
    report.add(
        "batches",
        "p50 of a batch of 1 variant, 1 caller",
        p50("batch of 1"),
        "ms",
        against=("p50 of one job", p50("job")),
    )
