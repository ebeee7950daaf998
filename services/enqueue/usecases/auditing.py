"""ListAuditEntries: who did what."""

from __future__ import annotations

from services.enqueue.store import audit
from services.enqueue.store.audit import AuditEntry
from services.enqueue.usecases.deps import Deps


async def list_entries(
    deps: Deps, *, team: str, job_id: int, before_id: int | None, limit: int
) -> list[AuditEntry]:
    """A page of the audit, newest first; an empty team and job 0 mean all."""
    async with deps.db.read_all() as tx:
        return await audit.page(tx, team=team, job_id=job_id, before_id=before_id, limit=limit)
