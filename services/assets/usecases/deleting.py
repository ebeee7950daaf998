"""DeleteFile: gone for everybody at once; the blob follows."""

from __future__ import annotations

from libs.common.errors import FailedPreconditionError, NotFoundError
from services.assets.domain import File, FileKind
from services.assets.store import files, pins
from services.assets.usecases.deps import Deps


async def delete_file(deps: Deps, team: str, file_id: int) -> None:
    """Deletes a team's file.

    The row's lock is taken first and the pins are read in the next statement: pinning holds the
    row too, so either the pin is seen here, or the pinning finds no file.

    Raises:
        NotFoundError: unknown, or deleted before.
        FailedPreconditionError: FILE_IN_USE.
    """
    async with deps.db.transaction(team) as tx:
        file = await files.lock(tx, team, file_id)
        if file is None:
            raise NotFoundError("file")
        if _of_live_job(file) or await pins.holds(tx, team, file_id):
            raise FailedPreconditionError(
                "a job uses the file; delete it when the job has ended", reason="FILE_IN_USE"
            )
        await files.delete(tx, team, file_id, deps.figures.removal_seconds)
        tx.on_commit(deps.wake_removals)
    deps.crash.here("A5")


def _of_live_job(file: File) -> bool:
    """An output whose job has not ended: deleting it would take it from under the job."""
    return file.kind is FileKind.GENERATED and not file.recorded
