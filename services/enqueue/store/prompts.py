"""The enhanced prompts of jobs."""

from __future__ import annotations

import sqlalchemy as sa

from libs.common.db import Tx
from services.enqueue import tables
from services.enqueue.domain import Job
from services.enqueue.store.rows import job_of

_jobs = tables.jobs


async def settle(tx: Tx, job_id: int, enhanced: str, enhance_ms: int) -> Job:
    """Keeps what a worker made of the prompt; the caller holds the job's lock."""
    row = (
        await tx.execute(
            sa.update(_jobs)
            .where(_jobs.c.id == job_id, _jobs.c.prompt_enhance_ms.is_(None))
            .values(prompt_enhanced=enhanced or None, prompt_enhance_ms=enhance_ms)
            .returning(_jobs)
        )
    ).one()
    return job_of(row)
