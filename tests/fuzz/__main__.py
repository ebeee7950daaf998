"""Fuzzes for as long as it is told: `python -m tests.fuzz --minutes 20 --seed 7`.

Rounds of random calls and of broken pictures take turns, on PostgreSQL and S3 or on SQLite and a
folder, each round in a new house on new databases. A round is made out of its seed, so a failure
comes back with `--seed N --rounds 1` (and the same `--store`), but for what hangs on timing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libs.common import logs
from tests.fuzz.calls import METHODS, drawn
from tests.fuzz.house import House, open_house
from tests.fuzz.judging import Tally
from tests.fuzz.pictures import DOORS, Kept, check_stored, pictures, send
from tests.fuzz.pool import Pool, fill
from tests.fuzz.running import check_promises, fuzz, resident_bytes
from tests.support.databases import SERVICES, PostgresTemplates, sqlite_database
from tests.support.postgres import PostgresServer
from tests.support.seaweed import SeaweedServer

CALLS, PICTURES = 1_000, 150  # of a round
# Of the whole process, rounds and rounds after the third: caches are full by then.
MAX_GROWN_BYTES = 256 * 2**20
WARM_ROUNDS = 3


def say(line: str) -> None:
    """To whoever ran it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass
class Figures:
    """Of a whole run."""

    tally: Tally = field(default_factory=Tally)
    kept: Kept = field(default_factory=Kept)
    resident: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def told(self, seconds: float) -> dict[str, Any]:
        """As they are stored."""
        by_method: dict[str, dict[str, int]] = {method: {} for method in METHODS}
        for (method, code), count in sorted(self.tally.calls.items()):
            by_method[method][code] = count
        return {
            "seconds": round(seconds),
            "rounds": len(self.resident),
            "calls": sum(self.tally.calls.values()),
            "by_status": self.tally.by_code(),
            "by_reason": dict(self.tally.reasons.most_common()),
            "by_method": by_method,
            "pictures_accepted": dict(self.kept.accepted),
            "pictures_refused": dict(self.kept.refused),
            "resident_bytes": self.resident,
            "failures": self.failed,
        }


@dataclass
class Stores:
    """The servers that houses live on; None: SQLite and folders."""

    templates: PostgresTemplates | None = None
    seaweed: SeaweedServer | None = None

    @asynccontextmanager
    async def house(self) -> AsyncIterator[tuple[House, Path | None]]:
        """A new house; and the folder of its blobs, where they are in one."""
        with tempfile.TemporaryDirectory(prefix="contentshop-fuzz-") as name:
            folder = Path(name)
            if self.templates is None or self.seaweed is None:
                urls = {s: await asyncio.to_thread(sqlite_database, s, folder) for s in SERVICES}
                async with open_house(urls, folder) as house:
                    yield house, folder / "blobs"
                return
            urls = {s: await asyncio.to_thread(self.templates.database, s) for s in SERVICES}
            bucket = f"fuzz-{secrets.token_hex(4)}"
            settings = {
                "BLOB_ACCESS_KEY": self.seaweed.access_key,
                "BLOB_SECRET_KEY": self.seaweed.secret_key,
                "BLOB_CREATE_BUCKET": "yes",
            }
            blob_url = self.seaweed.blob_url().replace(self.seaweed.bucket, bucket, 1)
            async with open_house(urls, folder, blob_url, **settings) as house:
                yield house, None


async def one_round(stores: Stores, number: int, figures: Figures) -> None:
    """Pictures, then calls, of one seed; ends with what must hold."""
    tally, kept = Tally(figures.tally.calls, figures.tally.reasons), Kept()
    async with stores.house() as (house, folder):
        doors = DOORS if folder is None else DOORS[:2]
        found = await asyncio.to_thread(drawn, pictures(doors), PICTURES, number)
        for order, picture in enumerate(found):
            await send(house, order, picture, tally, kept)
        await check_stored(house, kept, folder)
        pool = Pool()
        await fill(house, pool)
        for step in range(2):
            await fuzz(house, pool, CALLS // 2, 2 * number + step, tally)
            await fill(house, pool, 2 + step)
        await check_promises(house, tally)
    figures.kept.accepted += kept.accepted
    figures.kept.refused += kept.refused
    figures.resident.append(resident_bytes())
    if tally.failures:
        raise AssertionError("\n".join(tally.failures))


async def run(asked: argparse.Namespace, stores: Stores, figures: Figures) -> None:
    """Rounds until the time is up."""
    until = time.monotonic() + asked.minutes * 60
    number = asked.seed
    while time.monotonic() < until if asked.rounds is None else number < asked.seed + asked.rounds:
        on = (
            stores
            if asked.store == "servers" or (asked.store == "both" and number % 2)
            else Stores()
        )
        store = "servers" if on is stores else "folder"
        try:
            await one_round(on, number, figures)
        except Exception as error:  # noqa: BLE001 - any fault is what we are looking for
            again = f"python -m tests.fuzz --seed {number} --rounds 1 --store {store}"
            figures.failed.append(f"{error}\nagain: {again}")
            say(f"{type(error).__name__}: {figures.failed[-1]}")
        resident = figures.resident[-1] / 2**20 if figures.resident else 0
        total = sum(figures.tally.calls.values())
        say(f"seed {number} on {store}: {total} calls so far, {resident:.0f} MiB")
        number += 1
    warm = figures.resident[WARM_ROUNDS:]
    if warm and warm[-1] - warm[0] > MAX_GROWN_BYTES:
        figures.failed.append(f"it grew from {warm[0]} to {warm[-1]} bytes")


def main() -> int:
    """Runs what is asked for; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--rounds", type=int, help="so many rounds, however long they take")
    parser.add_argument("--store", choices=("both", "folder", "servers"), default="both")
    parser.add_argument("--json", type=Path, help="where the figures go")
    asked = parser.parse_args()
    logs.configure("fuzz", level="critical", json=False)
    figures, began = Figures(), time.monotonic()
    say(f"seed {asked.seed}")
    with ExitStack() as stack:
        stores = Stores()
        if asked.store != "folder":
            postgres, seaweed = PostgresServer(fsync=False), SeaweedServer()
            stack.callback(postgres.close)
            postgres.start()
            stack.callback(seaweed.close)
            seaweed.start()
            stores = Stores(PostgresTemplates(postgres), seaweed)
        asyncio.run(run(asked, stores, figures))
    told = figures.told(time.monotonic() - began)
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(told, indent=1))
    shown = {name: value for name, value in told.items() if name not in {"by_method", "failures"}}
    say(json.dumps(shown, indent=1))
    never = sorted(m for m in METHODS if not figures.tally.calls[m, "OK"])
    say(f"never answered OK: {never}")
    say(f"{len(figures.failed)} rounds with failures")
    return 1 if figures.failed else 0


if __name__ == "__main__":
    sys.exit(main())
