"""`python -m tests.soak [--minutes N] [--real]`: exit 1 when something grows."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from libs.common import logs
from tests.benchmarks import machine
from tests.soak import looking, places
from tests.soak.load import Load
from tests.soak.verdict import Sample, Verdict, judge
from tests.support.process import ServerMissingError

TEAMS = 3
PACE_SECONDS = 3.0
LOOK_SECONDS = 5.0
SHORT_LOOK_SECONDS = 1.0  # for a run of a minute or two
FAILED_SHARE = 0.002  # of the rounds: a machine's hiccups


class Soak:
    """One run: the load, the looks, and what they say."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._look_seconds = LOOK_SECONDS if seconds >= 300 else SHORT_LOOK_SECONDS
        self.load = Load(PACE_SECONDS)
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        self.ran_seconds = 0.0

    async def run(self, place: places.Place) -> None:
        """Loads and looks until time is up."""
        began = time.monotonic()
        until = began + self._seconds
        async with asyncio.TaskGroup() as group:
            for number in range(TEAMS):
                # Each begins elsewhere in the list, so that the load is the same at all times.
                group.create_task(self.load.run(place.team(f"team-{number}"), 3 * number, until))
            while time.monotonic() < until:
                at = time.monotonic() - began
                await place.age()
                for name, value in (await place.look()).items():
                    self.samples[name].append((at, float(value)))
                await asyncio.sleep(self._look_seconds)
        self.ran_seconds = time.monotonic() - began

    def verdicts(self) -> dict[str, Verdict]:
        """Of all measures that have samples enough."""
        rounds_per_hour = self.load.rounds.total() * 3600 / self.ran_seconds
        found: dict[str, Verdict] = {}
        for name, samples in sorted(self.samples.items()):
            kind = name.partition(" ")[0]
            if kind in looking.UNJUDGED:
                bound = float("inf")
            elif kind == "rows":
                bound = looking.ROWS_PER_ROUND * rounds_per_hour
            else:
                bound = looking.BOUNDS[kind]
            if verdict := judge(samples, bound):
                found[name] = verdict
        return found

    @property
    def broken(self) -> bool:
        """Whether the load itself failed."""
        return self.load.failed > FAILED_SHARE * self.load.rounds.total()


def table(soak: Soak, verdicts: dict[str, Verdict]) -> Table:
    """For people: what is always the same is left out."""
    rounds = dict(soak.load.rounds)
    shown = Table(
        title=f"{soak.ran_seconds / 60:.1f} min, rounds {rounds}, failed {soak.load.failed}",
        title_justify="left",
    )
    for name in ("measure", "mean", "per hour", "± error", "bound", ""):
        shown.add_column(name, justify="left" if name in {"measure", ""} else "right")
    for name, one in verdicts.items():
        if one.slope or one.error:
            word = f"[red]{one.word}[/red]" if one.grows else one.word
            figures = (one.mean, one.slope, one.error, one.bound)
            shown.add_row(name, *(f"{figure:,.2f}" for figure in figures), word)
    still = sum(not (one.slope or one.error) for one in verdicts.values())
    shown.caption = f"and {still} measures that did not move at all"
    return shown


def write(path: Path, soak: Soak, verdicts: dict[str, Verdict], facts: dict[str, Any]) -> None:
    """Everything as JSON."""
    said = {
        name: {"mean": v.mean, "per_hour": v.slope, "error": v.error, "verdict": v.word}
        for name, v in verdicts.items()
    }
    whole = {
        **facts,
        "seconds": soak.ran_seconds,
        "rounds": dict(soak.load.rounds),
        "failed": soak.load.failed,
        "errors": soak.load.errors,
        "verdicts": said,
        "samples": soak.samples,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


async def run(seconds: float, *, real: bool, target: Path | None) -> int:
    """The whole run; its exit code."""
    facts = machine.facts()
    soak = Soak(seconds)
    async with places.real() if real else places.embedded() as place:
        await soak.run(place)
    verdicts = soak.verdicts()
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(soak, verdicts))
    for error in soak.load.errors:
        console.print(error, markup=False)
    kind = "real" if real else "embedded"
    name = f"{facts['date'][:10]}-{facts['commit']}-{kind}.json"
    path = target or machine.ROOT / "out" / "soak" / name
    write(path, soak, verdicts, facts)
    grown = [name for name, one in verdicts.items() if one.grows]
    unclear = [name for name, one in verdicts.items() if one.word == "unclear"]
    console.print(f"{path}; grows: {grown or 'nothing'}; too noisy to tell: {unclear or 'nothing'}")
    return 1 if grown or soak.broken or not verdicts else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--real", action="store_true", help="PostgreSQL, RabbitMQ, S3, processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="instead of out/soak/…")
    asked = parser.parse_args()
    logs.configure("soak", level="warning", json=False)
    try:
        return asyncio.run(run(asked.minutes * 60, real=asked.real, target=asked.json))
    except ServerMissingError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    sys.exit(main())
