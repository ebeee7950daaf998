"""Removing the packager's own old rows; the zips' files are assets' to remove."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from services.packager.store import retention
from services.packager.usecases.deps import Deps

log = structlog.get_logger()

DAY_SECONDS = 86_400.0
STEP = 200  # rows in one transaction


@dataclass(frozen=True, slots=True)
class Ages:
    """After how many days rows are removed; 0: never."""

    archives_days: int
    keys_days: int


async def remove_old_rows(deps: Deps, ages: Ages, *, step: int = STEP) -> bool:
    """At most `step` rows of each kind; True when there may be more."""
    more = False
    for what, days, remove in (
        ("archives", ages.archives_days, retention.remove_archives),
        ("keys", ages.keys_days, retention.remove_keys),
    ):
        if not days:
            continue
        async with deps.db.duty() as tx:
            removed = await remove(tx, days * DAY_SECONDS, step)
        if removed:
            log.info("retention.removed", what=what, rows=removed)
        more = more or removed == step
    return more
