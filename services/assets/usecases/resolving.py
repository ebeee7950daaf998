"""ResolveImages: references to files and where to read them, all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from libs.common.blobs import BlobStore
from libs.common.checks import Violations
from libs.common.db import Tx
from libs.common.errors import ContentshopError, InvalidArgumentError
from libs.common.group_commit import GroupCommit
from services.assets.domain import File, MoodboardContent
from services.assets.store import files, folders, moodboards, pins
from services.assets.store.pins import Pin
from services.assets.usecases.deps import Deps
from services.assets.usecases.referencing import BAD_REFERENCE, NOT_AN_UPLOAD, NOT_FOUND

MAX_REFS_TOGETHER = 2_000  # as many as one request may have
FEW = 16


@dataclass(frozen=True, slots=True)
class ReadableFile:
    """A file and the blob_url to read it by."""

    file: File
    blob_url: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be resolved.

    Attributes:
        file_ids: one per reference; None where it was not of a form we take.
        moodboard_id: a moodboard to take a snapshot of; 0 for none.
        folder_id: a folder to check; 0 for none.
        pins: token → positions of the references that are pinned under it, with the moodboard's
            files; none: no pin.
    """

    file_ids: Sequence[int | None]
    moodboard_id: int = 0
    folder_id: int = 0
    pins: Mapping[str, Collection[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The images in the order asked, and the moodboard's snapshot where one was asked for."""

    images: list[ReadableFile]
    moodboard: MoodboardContent | None


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request, and the moodboard it names as it stands, where there is one."""

    team: str
    wanted: Wanted
    moodboard: MoodboardContent | None

    @property
    def of_moodboard(self) -> set[int]:
        """What its moodboard holds."""
        return self.moodboard.file_ids() if self.moodboard else set()

    @property
    def file_ids(self) -> set[int]:
        """All it refers to."""
        named = {file_id for file_id in self.wanted.file_ids if file_id is not None}
        return named | self.of_moodboard


@dataclass(frozen=True, slots=True)
class _Found:
    """What a request refers to, by file id."""

    images: dict[int, File]
    moodboard: MoodboardContent | None


_Request = tuple[str, Wanted]
_Group = Sequence[_Request]
_Results = Sequence[_Found | ContentshopError]


class ResolveImages:
    """Resolves references; requests that come while others do share the next transaction.

    Args:
        deps: shared means.
    """

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self.reads = self._groups(self._read)
        self.commits = self._groups(self._pin)

    async def __call__(self, team: str, wanted: Wanted) -> Resolved:
        """The images, the moodboard's snapshot, and their files pinned where that is asked for.

        Raises:
            InvalidArgumentError: BAD_IMAGE_REFERENCE, naming every bad reference at refs[i], and
                at moodboard_id and folder_id what the team does not have.
        """
        found = await (self.commits if wanted.pins else self.reads).submit((team, wanted))
        asked = {file_id for file_id in wanted.file_ids if file_id is not None}
        readable = await _readable(self._deps.blobs, [found.images[n] for n in asked])
        return Resolved([readable[n] for n in wanted.file_ids if n is not None], found.moodboard)

    @staticmethod
    def _groups(run: Callable[[_Group], Awaitable[_Results]]) -> GroupCommit[_Request, _Found]:
        return GroupCommit(
            run, max_weight=MAX_REFS_TOGETHER, weight=lambda one: len(one[1].file_ids)
        )

    async def _read(self, group: _Group) -> _Results:
        async with self._deps.db.read(*_teams(group)) as tx:
            return [found for _, found in await _find(tx, group, hold=False)]

    async def _pin(self, group: _Group) -> _Results:
        async with self._deps.db.transaction(*_teams(group)) as tx:
            found = await _find(tx, group, hold=True)
            good = [asked for asked, result in found if isinstance(result, _Found)]
            new = [pin for asked in good for pin in _pins_of(asked)]
            await pins.add(tx, new, self._deps.figures.pin_seconds)
        return [result for _, result in found]


def readable(deps: Deps, file: File) -> ReadableFile:
    """A file and where to read it."""
    return ReadableFile(file, deps.blobs.read_url(file.blob_key))


def _teams(group: _Group) -> list[str]:
    return sorted({team for team, _ in group})


async def _find(
    tx: Tx, group: _Group, *, hold: bool
) -> list[tuple[_Asked, _Found | ContentshopError]]:
    """For each request what it refers to, or what is wrong with it; files in one statement."""
    everything = [
        _Asked(team, wanted, await _snapshot(tx, team, wanted, hold=hold)) for team, wanted in group
    ]
    ids: dict[str, set[int]] = {}
    for asked in everything:
        ids.setdefault(asked.team, set()).update(asked.file_ids)
    images = await files.find_images_of(tx, ids, hold=hold)
    results: list[tuple[_Asked, _Found | ContentshopError]] = []
    for asked in everything:
        try:
            results.append((asked, await _judge(tx, asked, images[asked.team])))
        except InvalidArgumentError as error:
            results.append((asked, error))
    return results


async def _snapshot(tx: Tx, team: str, wanted: Wanted, *, hold: bool) -> MoodboardContent | None:
    """The moodboard as it stands. Held, none of its files can go before they are pinned."""
    moodboard_id = wanted.moodboard_id
    if not moodboard_id or (hold and not await moodboards.hold(tx, team, moodboard_id)):
        return None
    moodboard = await moodboards.find(tx, team, moodboard_id)
    return moodboard.content if moodboard else None


async def _judge(tx: Tx, asked: _Asked, images: dict[int, File]) -> _Found:
    """What was asked for, among these images of its team; InvalidArgumentError."""
    wanted = asked.wanted
    violations = _bad_references(wanted.file_ids, images)
    if wanted.moodboard_id and asked.moodboard is None:
        violations.add("moodboard_id", "is not found", "MOODBOARD_NOT_FOUND")
    if wanted.folder_id and not await folders.exists(tx, asked.team, wanted.folder_id):
        violations.add("folder_id", "is not found", "FOLDER_NOT_FOUND")
    violations.raise_if_any(BAD_REFERENCE)
    return _Found(images, asked.moodboard)


def _pins_of(asked: _Asked) -> list[Pin]:
    """The pins of a request: under each token its references, and the moodboard's files."""
    references = asked.wanted.file_ids
    pinned: list[Pin] = []
    for token, places in asked.wanted.pins.items():
        named = asked.of_moodboard.union(references[place] for place in places)
        pinned += [Pin(asked.team, token, file_id) for file_id in named if file_id is not None]
    return pinned


def _bad_references(file_ids: Sequence[int | None], found: dict[int, File]) -> Violations:
    violations = Violations()
    for index, file_id in enumerate(file_ids):
        if file_id is None:
            violations.add(f"refs[{index}]", "is not an upload", NOT_AN_UPLOAD)
        elif file_id not in found:
            violations.add(f"refs[{index}]", "is not found", NOT_FOUND)
    return violations


async def _readable(blobs: BlobStore, found: Sequence[File]) -> dict[int, ReadableFile]:
    """By file id. Signing 2,000 URLs takes a while, and is done off the loop."""

    def sign() -> dict[int, ReadableFile]:
        return {file.id: ReadableFile(file, blobs.read_url(file.blob_key)) for file in found}

    return sign() if len(found) <= FEW else await asyncio.to_thread(sign)
