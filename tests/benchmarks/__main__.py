"""`python -m tests.benchmarks [NAME…] [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console

from libs.common import logs
from tests.benchmarks import (
    batches,
    enqueueing,
    fairness,
    machine,
    makespan,
    million,
    overhead,
    watchers,
    watching,
    zipping,
)
from tests.benchmarks.figures import Report
from tests.benchmarks.houses import servers
from tests.benchmarks.plan import Bench
from tests.support.process import ServerMissingError

MEASURES: dict[str, Callable[[Bench, Report], Awaitable[None]]] = {
    "enqueue": enqueueing.measure,
    "batches": batches.measure,
    "overhead": overhead.measure,
    "makespan": makespan.measure,
    "watch": watching.measure,
    "watchers": watchers.measure,
    "zip": zipping.measure,
    "million": million.measure,
    "fairness": fairness.measure,
}


async def run(names: list[str], *, quick: bool, target: Path | None) -> None:
    """Measures, shows each measure's rows when it is done, and writes the JSON."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    facts, report = machine.facts(), Report()
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    async with servers(s3="zip" in names) as on:
        for name in names:
            begun = time.monotonic()
            try:
                await MEASURES[name](Bench(on, quick), report)
            except (AssertionError, OSError, RuntimeError, ExceptionGroup) as error:
                failed[name] = repr(error)
                console.print(f"[red]{name} failed:[/red]")
                console.print_exception()
            seconds[name] = round(time.monotonic() - begun, 1)
            report.print(name, console)
    facts |= {
        "quick": quick,
        "seconds": seconds,
        "failed": failed,
        "load_average_after": os.getloadavg()[0],
    }
    path = target or machine.ROOT / "out" / "bench" / f"{facts['date'][:10]}-{facts['commit']}.json"
    report.write(path, facts)
    loads = f"{facts['load_average_before']:.1f} before, {facts['load_average_after']:.1f} after"
    console.print(f"{path}; load average {loads}; seconds {seconds}")
    if failed:
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--quick", action="store_true", help="a look in 90 s instead of 8 min")
    parser.add_argument("--json", type=Path, metavar="FILE", help="instead of out/bench/…")
    args = parser.parse_args()
    if unknown := set(args.names) - MEASURES.keys():
        parser.error(f"no such measure: {', '.join(sorted(unknown))}")
    logs.configure("bench", level="warning", json=False)
    try:
        asyncio.run(run(args.names or list(MEASURES), quick=args.quick, target=args.json))
    except ServerMissingError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
