"""The duties of the packager: building what is due, keeping its leases, reporting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from libs.common.errors import AbortedError, LeaseLostError, UnavailableError
from libs.common.lifecycle import Duty, TaskOwner
from services.packager.domain import Archive, Attempt
from services.packager.store import builds
from services.packager.usecases.building import Progress
from services.packager.usecases.deps import Deps

log = structlog.get_logger()

MAX_KNOWN_TEAMS = 1000
PROGRESS_SECONDS = 1.0  # a build that takes less writes no progress


@dataclass(slots=True)
class _Build:
    archive: Archive
    progress: Progress
    task: asyncio.Task[None]
    told: int = 0  # images, as last written to the row

    @property
    def fence(self) -> int:
        return self.archive.fence


class Builder:
    """Builds due archives, a few at once, each under a lease that is renewed meanwhile.

    Stop breaks builds off and hands them back: nothing half-written can be read, and the next
    packager begins at once.

    Args:
        deps: shared means.
        build: one attempt at one archive.
        at_once: builds at once.
        floor_seconds: how often it looks for due archives when nobody wakes it.
        alone: no other packager uses this database: leases found at the start are of the dead.
    """

    def __init__(
        self,
        deps: Deps,
        build: Callable[[Attempt, Progress], Awaitable[None]],
        *,
        at_once: int,
        floor_seconds: float,
        alone: bool,
    ) -> None:
        self._deps = deps
        self._build = build
        self._at_once = at_once
        self._alone = alone
        self._running: dict[int, _Build] = {}
        self._served: dict[str, int] = {}
        self._serving = 0
        self._owner = TaskOwner()
        self._taking = Duty("build", self._take, floor_seconds=floor_seconds, ids=deps.ids)
        self._renewing = Duty(
            "build_leases",
            self._renew,
            floor_seconds=deps.limits.lease_seconds / 3,
            ids=deps.ids,
        )
        self._telling = Duty(
            "build_progress", self._tell, floor_seconds=PROGRESS_SECONDS, ids=deps.ids
        )

    def wake(self) -> None:
        """An archive may be due."""
        self._taking.wake()

    async def start(self) -> None:
        """Begins to build."""
        if self._alone:
            async with self._deps.db.duty() as tx:
                await builds.revoke_all(tx)
        await self._taking.start()
        await self._renewing.start()
        await self._telling.start()

    async def stop(self) -> None:
        """Breaks builds off and hands them back."""
        await self._taking.stop()
        await self._renewing.stop()
        await self._telling.stop()
        held = self._held()
        await self._owner.close()
        if held:
            async with self._deps.db.duty() as tx:
                await builds.hand_back(tx, held)

    def _held(self) -> dict[int, int]:
        return {archive_id: build.fence for archive_id, build in self._running.items()}

    async def _take(self) -> bool:
        free = self._at_once - len(self._running)
        if free <= 0:
            return False  # the end of a build comes back
        async with self._deps.db.duty() as tx:
            lease_seconds = self._deps.limits.lease_seconds
            taken = await builds.take(tx, free, lease_seconds, self._served)
        for attempt in taken:
            archive, progress = attempt.archive, Progress()
            self._serve(archive.team)
            if archive.id in self._running:  # by a lease that ran out before it was renewed
                self._running[archive.id].task.cancel()
            task = self._owner.spawn(self._run(attempt, progress), name=f"build.{archive.id}")
            self._running[archive.id] = _Build(archive, progress, task)
        return False

    def _serve(self, team: str) -> None:
        """Puts the team last in the order of turns."""
        self._serving += 1
        self._served.pop(team, None)
        self._served[team] = self._serving
        if len(self._served) > MAX_KNOWN_TEAMS:
            del self._served[next(iter(self._served))]  # the one served longest ago

    async def _run(self, attempt: Attempt, progress: Progress) -> None:
        archive = attempt.archive
        try:
            await self._build(attempt, progress)
        except LeaseLostError:
            log.info("build.lease_lost", archive_id=archive.id)
        except (UnavailableError, AbortedError) as error:
            log.warning("build.not_recorded", archive_id=archive.id, reason=error.reason)
        finally:
            running = self._running.get(archive.id)
            if running is not None and running.fence == archive.fence:  # not the next attempt's
                del self._running[archive.id]
            self._taking.wake()

    async def _renew(self) -> bool:
        held = self._held()
        if held:
            async with self._deps.db.duty() as tx:
                kept = await builds.renew(tx, held, self._deps.limits.lease_seconds)
            for archive_id in held.keys() - kept:
                build = self._running.get(archive_id)
                if build is not None and build.fence == held[archive_id]:
                    build.task.cancel()
        return False

    async def _tell(self) -> bool:
        """Writes how far the builds are, for watchers at any packager."""
        news = [
            build for build in self._running.values() if build.progress.images_written > build.told
        ]
        if news:
            async with self._deps.db.duty() as tx:
                for build in news:  # as many as are built at once: three at most
                    build.told = build.progress.images_written
                    await builds.note_progress(tx, build.archive, build.told)
                tx.on_commit(self._deps.wake_watchers)
        return False
