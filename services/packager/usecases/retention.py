"""How long the packager keeps its own rows; the zips' files are assets' to remove."""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.retention import STEP_ROWS, Retention, Rule
from services.packager.store import retention
from services.packager.usecases.deps import Deps


@dataclass(frozen=True, slots=True)
class Ages:
    """After how many days rows are removed; 0: never."""

    archives_days: float
    keys_days: float


def retention_of(deps: Deps, ages: Ages, *, step_rows: int = STEP_ROWS) -> Retention:
    """The rules."""
    rules = [
        Rule("archives", ages.archives_days, retention.remove_archives, step_rows),
        Rule("keys", ages.keys_days, retention.remove_keys, step_rows),
    ]
    return Retention(deps.db, deps.clock, rules)
