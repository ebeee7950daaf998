"""DeleteFile: gone for everybody at once; the blob follows."""

from __future__ import annotations

from libs.common.errors import FailedPreconditionError, NotFoundError
from services.assets.store import files, moodboards, pins
from services.assets.usecases.deps import Deps


async def delete_file(deps: Deps, team: str, file_id: int) -> None:
    """Deletes a team's file.

    The row's lock is taken first, pins and moodboards are read in the next statements: who pins
    or uses the file holds its row too, so either that is seen here, or it finds no file.

    Raises:
        NotFoundError: unknown, or deleted before.
        FailedPreconditionError: FILE_IN_USE.
    """
    async with deps.db.transaction(team) as tx:
        file = await files.lock(tx, team, file_id)
        if file is None:
            raise NotFoundError("file")
        # An output whose job has not ended would be taken from under the job.
        if file.of_live_job or await pins.holds(tx, team, file_id):
            raise FailedPreconditionError(
                "a job uses the file; delete it when the job has ended", reason="FILE_IN_USE"
            )
        if await moodboards.uses(tx, team, file_id):
            raise FailedPreconditionError("a moodboard uses the file", reason="FILE_IN_USE")
        await files.delete(tx, team, file_id, deps.figures.removal_seconds)
        tx.on_commit(deps.wake_removals)
    deps.crash.here("A5")
