"""Folders: made by teams or with the first image of a job, and filled by the ends of jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from libs.common import request_keys
from libs.common.db import Tx
from libs.common.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
)
from libs.common.request_keys import RequestKey
from services.assets import tables
from services.assets.domain import File, Filing, Folder, FolderKind, NewFolder
from services.assets.filenames import clean_folder_name
from services.assets.store import folders, teams
from services.assets.usecases.deps import Deps

DEFAULT_NAME = "Images"
MAX_ZIPPED = 2_000


@dataclass(frozen=True, slots=True)
class FolderImages:
    """The images of a folder, oldest first, and its name."""

    name: str
    file_ids: list[int]


async def create_folder(deps: Deps, key: RequestKey, name: Callable[[], str]) -> Folder:
    """A new folder, or the one this request_id made before.

    Args:
        deps: shared means.
        key: the caller's key; its request_id may be empty.
        name: checks and cleans the name asked for; called only when the key is new.

    Raises:
        InvalidArgumentError: what is wrong with the name.
        AlreadyExistsError: FOLDER_EXISTS, IDEMPOTENCY_KEY_REUSED.
        ResourceExhaustedError: TOO_MANY_FOLDERS.
    """
    team = key.team
    async with deps.db.transaction(team) as tx:
        await teams.lock(tx, team)
        kept = await request_keys.find_same(tx, tables.idempotency_keys, key)
        if kept is not None:
            return await _found(tx, team, kept.resource_id)
        new = NewFolder(FolderKind.NAMED, name())
        if await folders.count_named(tx, team) >= deps.figures.folders_per_team:
            raise ResourceExhaustedError(
                "the team has as many folders as it may",
                reason="TOO_MANY_FOLDERS",
                quota_subject="folders",
            )
        folder = await folders.add(tx, team, new)
        if folder is None:
            raise AlreadyExistsError("a folder of this name exists", reason="FOLDER_EXISTS")
        if key.request_id:
            await request_keys.add(tx, tables.idempotency_keys, [(key, folder.id)])
    return folder


async def get_folder(deps: Deps, team: str, folder_id: int) -> Folder:
    """A team's folder; NotFoundError."""
    async with deps.db.read(team) as tx:
        return await _found(tx, team, folder_id)


async def list_folders(
    deps: Deps, team: str, batch_id: int, *, before_id: int | None, limit: int
) -> list[Folder]:
    """A page of a team's folders, newest first."""
    async with deps.db.read(team) as tx:
        found = await folders.page(tx, team, batch_id, before_id=before_id, limit=limit)
        counts = await folders.count_files(tx, team, [folder.id for folder in found])
    return [replace(folder, file_count=counts.get(folder.id, 0)) for folder in found]


async def list_folder_files(
    deps: Deps, team: str, folder_id: int, *, before_id: int | None, limit: int
) -> list[File]:
    """A page of the files in a folder, newest first; NotFoundError."""
    async with deps.db.read(team) as tx:
        if not await folders.exists(tx, team, folder_id):
            raise NotFoundError("folder")
        return await folders.page_of_files(tx, team, folder_id, before_id=before_id, limit=limit)


async def list_folder_images(deps: Deps, team: str, folder_id: int) -> FolderImages:
    """What a zip of the folder holds.

    Raises:
        NotFoundError: unknown, or another team's.
        FailedPreconditionError: FOLDER_TOO_LARGE.
    """
    async with deps.db.read(team) as tx:
        folder = await folders.find(tx, team, folder_id)
        if folder is None:
            raise NotFoundError("folder")
        file_ids = await folders.image_ids(
            tx, team, folder_id, MAX_ZIPPED + 1, approved_only=deps.figures.review_required
        )
    if len(file_ids) > MAX_ZIPPED:
        raise FailedPreconditionError(
            f"the folder holds more than {MAX_ZIPPED} images", reason="FOLDER_TOO_LARGE"
        )
    return FolderImages(folder.name, file_ids)


async def put_in_folders(tx: Tx, team: str, filing: Filing, file_ids: Sequence[int]) -> None:
    """Puts a job's images where they belong, in the transaction that makes them visible.

    That is the folder its caller chose, and for a batch the batch's folder and the variant's in
    it; without any of them the team's default folder.
    """
    chosen: list[int] = []
    if filing.folder_id and await folders.exists(tx, team, filing.folder_id):
        chosen.append(filing.folder_id)
    wanted = _of_batch(filing) if filing.batch_id else []
    if not chosen and not wanted:
        wanted = [NewFolder(FolderKind.DEFAULT, DEFAULT_NAME)]
    chosen += await folders.ensure(tx, team, wanted)
    await folders.put(tx, team, chosen, file_ids)


def _of_batch(filing: Filing) -> list[NewFolder]:
    batch, index = filing.batch_id, filing.variant_index
    name = clean_folder_name(filing.batch_name) or f"batch-{batch}"
    wanted = [NewFolder(FolderKind.BATCH, name, batch)]
    if index > 0:
        variant = clean_folder_name(filing.variant) or f"variant-{index}"
        wanted.append(NewFolder(FolderKind.BATCH_VARIANT, variant, batch, index))
    return wanted


async def _found(tx: Tx, team: str, folder_id: int) -> Folder:
    folder = await folders.find(tx, team, folder_id)
    if folder is None:
        raise NotFoundError("folder")
    counts = await folders.count_files(tx, team, [folder_id])
    return replace(folder, file_count=counts.get(folder_id, 0))
