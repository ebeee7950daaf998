"""What assets keeps, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.db import Tx
from libs.common.retention import Remove, Retention, Rule
from services.assets.domain import FileKind
from services.assets.store import retention
from services.assets.usecases.deps import Deps

# A worker cannot send an image, nor a broker a job's end, so long after the end.
ENDINGS_DAYS = 30.0


@dataclass(frozen=True, slots=True)
class Ages:
    """After how many days things go; 0: never."""

    generated_days: float
    archives_days: float
    keys_days: float


def retention_of(deps: Deps, ages: Ages) -> Retention:
    """The rules: old files are deleted as DeleteFile does it, and their blobs follow."""
    rules = [
        Rule("generated", ages.generated_days, _files(deps, FileKind.GENERATED)),
        Rule("folders", ages.generated_days, retention.remove_folders),
        Rule("archives", ages.archives_days, _files(deps, FileKind.ARCHIVE)),
        Rule("keys", ages.keys_days, retention.remove_keys),
        Rule("uploads", ages.keys_days, retention.remove_uploads),
        Rule("endings", ENDINGS_DAYS, retention.remove_endings),
    ]
    return Retention(deps.db, deps.clock, rules, removed=deps.wake_removals)


def _files(deps: Deps, kind: FileKind) -> Remove:
    async def remove(tx: Tx, age_seconds: float, limit: int) -> int:
        return await retention.delete_old(
            tx, kind, age_seconds, limit, removal_seconds=deps.figures.removal_seconds
        )

    return remove
