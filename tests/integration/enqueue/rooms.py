"""enqueue's store on a database, with nothing running: rows put as a test wants them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from libs.common.clock import SystemClock
from libs.common.crash import CrashPoints
from libs.common.db import Database
from libs.common.ids import SystemIds
from services.enqueue import tables
from services.enqueue.domain import InputImage, Job, JobSpec, JobState, Labels
from services.enqueue.gateways import ProtoAnnouncer
from services.enqueue.prompt import Prompt, PromptStrategy
from services.enqueue.store import admission, jobs, new_jobs
from services.enqueue.usecases.deps import Deps, Limits
from services.enqueue.wakeups import LocalWakeups
from tests.support.databases import DatabaseUrls

SPEC = JobSpec(
    team="red",
    type="image_generation",
    quality="fast",
    format="png",
    schema_key="apparel.catalog.v1",
    values={},
    aspect_ratio="",
    count=1,
    inputs=(InputImage("product", 1),),
    moodboard=None,
    prompt=Prompt("a shirt", PromptStrategy.NONE),
    priority=0,
    labels=Labels(),
    pin_token="p" * 32,
)
LONG = 3600.0


def deps_of(db: Database, limits: Limits) -> Deps:
    """What use cases share, with nobody to wake."""
    return Deps(
        db=db,
        announcer=ProtoAnnouncer(),
        wakeups=LocalWakeups(),
        wake_relay=lambda: None,
        limits=limits,
        crash=CrashPoints(""),
        ids=SystemIds(),
    )


@dataclass
class Rooms:
    """A database, and how to furnish it."""

    db: Database
    made: int = 0

    async def add(
        self, many: int = 1, /, *, admitted: bool = False, paying: bool = False, **fields: Any
    ) -> list[Job]:
        """So many new jobs; `fields` are of their spec."""
        specs = []
        for _ in range(many):
            self.made += 1
            specs.append(replace(SPEC, **fields, pin_token=f"pin-{self.made}"))
        team = specs[0].team
        async with self.db.transaction(team) as tx:
            await admission.ensure_teams(tx, [team])
            return await new_jobs.add(
                tx,
                specs,
                admitted={spec.pin_token for spec in specs} if admitted else (),
                max_attempts=3,
                ring=LONG,
                confirm=LONG,
                paying=[team] if paying else (),
            )

    async def running(self, *, paying: bool = False, **fields: Any) -> Job:
        """A job that a worker has claimed."""
        [job] = await self.add(admitted=True, paying=paying, **fields)
        async with self.db.duty() as tx:
            claimed = await jobs.claim(tx, job.id, claim_id="c1", worker="w1", lease_seconds=LONG)
        assert claimed is not None
        return claimed

    async def ended(self, state: JobState = JobState.SUCCEEDED, **fields: Any) -> Job:
        """A job that has run and ended so."""
        job = await self.running(**fields)
        async with self.db.duty() as tx:
            over = await jobs.end(tx, job.id, state, None, archive_ring=None, confirm=LONG)
        assert over is not None
        return over

    async def change(self, job_id: int, **columns: Any) -> None:
        """Sets columns of a job; of a time, the seconds from now."""
        async with self.db.duty() as tx:
            values = {
                name: tx.after(value)
                if isinstance(tables.jobs.c[name].type, type(tables.jobs.c.created_at.type))
                and value is not None
                else value
                for name, value in columns.items()
            }
            await tx.execute(
                sa.update(tables.jobs).where(tables.jobs.c.id == job_id).values(values)
            )

    async def row(self, job_id: int) -> Any:
        """A job's row."""
        async with self.db.read_all() as tx:
            found = await tx.execute(sa.select(tables.jobs).where(tables.jobs.c.id == job_id))
            return found.one()

    async def now(self) -> datetime:
        """The database's time."""
        async with self.db.read_all() as tx:
            return await tx.scalar(sa.select(tx.now()))  # type: ignore[no-any-return]


@asynccontextmanager
async def open_rooms(urls: DatabaseUrls) -> AsyncIterator[Rooms]:
    """The store on a database."""
    db = Database(urls.app, duty_url=urls.duty, clock=SystemClock())
    yield Rooms(db)
    await db.stop()
