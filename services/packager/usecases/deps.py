"""What the use cases share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from libs.common.backoff import Backoff
from libs.common.clock import Clock
from libs.common.crash import CrashPoints
from libs.common.db import Database
from libs.common.ids import Ids


@dataclass(frozen=True, slots=True)
class Limits:
    """The figures of a build and of a report, in seconds and counts.

    Attributes:
        attempts: at one zip before it is FAILED; 5 with `retry` span about a minute.
        retry: between attempts. The first is short: assets may hear of the job's end, which
            makes its images readable, a moment after us.
        report: between reports that do not arrive; they never end.
        report_seconds: a report not settled by then is made again.
    """

    attempts: int = 5
    lease_seconds: float = 30.0
    retry: Backoff = field(default_factory=lambda: Backoff(0.5, 60.0, factor=5.0))
    report: Backoff = field(default_factory=lambda: Backoff(0.5, 60.0))
    report_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Deps:
    """What every use case is given.

    Attributes:
        wake_builder: to be called when an archive became due.
        wake_reporter: to be called when a report became due.
        wake_watchers: to be called when an archive changed.
    """

    db: Database
    clock: Clock
    limits: Limits
    ids: Ids
    crash: CrashPoints
    wake_builder: Callable[[], None]
    wake_reporter: Callable[[], None]
    wake_watchers: Callable[[], None]
