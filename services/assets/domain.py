"""Files and how they are named: rules only, standard library only.

A file, how it comes, how it goes, who cleans up:

stored    by UploadFile, CompleteUpload, StoreGenerated or StoreArchive, its blob first. A
          generated file is hidden from lists until `job.ended` has recorded it; one that was never
          recorded is deleted then.
hidden    where reviews are required, until one has approved it: its facts are shown, its bytes to
          reviewers alone. A later review may hide it again.
deleted   by DeleteFile, the end of its job or retention: NOT_FOUND from then on, and its bytes no
          longer count. The removals duty removes
          the blob when nobody can be reading it any more, then the row.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class FileKind(StrEnum):
    """What a file is."""

    UPLOAD = "UPLOAD"
    GENERATED = "GENERATED"
    ARCHIVE = "ARCHIVE"


IMAGE_KINDS = (FileKind.UPLOAD, FileKind.GENERATED)
ARCHIVE_TYPE = "application/zip"

_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_FOLDERS = {
    FileKind.UPLOAD: "uploads",
    FileKind.GENERATED: "generated",
    FileKind.ARCHIVE: "archives",
}
_BLOB_KEY = re.compile(
    r"[0-9a-f]{32}/(?:(?:uploads|incoming|generated)/[0-9a-f]{32}|archives/[0-9a-f]{32}\.zip)"
)


@dataclass(frozen=True, slots=True)
class Content:
    """The stored bytes of a file: type, size, pixels (0 for archives) and checksums.

    Attributes:
        content_type: by the content.
        size_bytes: of what is stored.
        width: in pixels, upright.
        height: likewise.
        sha256: lower-case hex.
        crc32: as in zip files, unsigned.
    """

    content_type: str
    size_bytes: int
    width: int
    height: int
    sha256: str
    crc32: int


@dataclass(frozen=True, slots=True)
class Slot:
    """Which image of which job, and who made it.

    Attributes:
        job_id: the job; 0 for uploads.
        image_index: from 1; 0 for uploads and archives.
        attempt: of the job.
        model: that made it.
        preview: no real model was at work.
    """

    job_id: int = 0
    image_index: int = 0
    attempt: int = 0
    model: str = ""
    preview: bool = False


class ReviewState(StrEnum):
    """What a person said of a job's images; where nobody has there is none."""

    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class Review:
    """What was said of a job's images, and when; of two the later one holds.

    Attributes:
        state: None: nobody has said anything.
        made_us: in microseconds since 1970, by enqueue's clock; 0: never.
    """

    state: ReviewState | None
    made_us: int


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a generated image; its file may be deleted since."""

    role: str
    file_id: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Making:
    """What a generated image was made of, in the generator's order, and what that took.

    Attributes:
        inputs: empty for uploads and archives.
        prompt_tokens: of prompt and references.
        output_tokens: of the image.
        total_tokens: all.
        cost_micros: in millionths of the price list's currency; 0: no price is set.
    """

    inputs: tuple[Input, ...] = ()
    prompt_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost_micros: int = 0


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file whose blob is stored and whose row is not.

    Attributes:
        batch_id: the batch an archive is of; 0 for others.
    """

    team: str
    kind: FileKind
    filename: str
    blob_key: str
    content: Content
    slot: Slot = Slot()
    making: Making = Making()
    batch_id: int = 0


@dataclass(frozen=True, slots=True)
class Upload:
    """What the uploader says of the file, checked.

    Attributes:
        filename: cleaned.
        content_type: as declared; empty: nothing said.
        size_bytes: of what follows, exactly.
        sha256: likewise, lower-case hex; empty: nothing said.
    """

    filename: str
    content_type: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """An upload whose bytes are put by URL: open until it expires or has become a file.

    Attributes:
        token: unguessable; names the raw blob, and the bytes set aside.
        file_id: what it became; 0: nothing yet.
    """

    id: int
    team: str
    token: str
    said: Upload
    expires_at: datetime
    file_id: int

    @property
    def raw_key(self) -> str:
        """The key of the blob that is put, before anything of it was checked."""
        return raw_key(self.team, self.token)


@dataclass(frozen=True, slots=True)
class File:
    """A stored file.

    Attributes:
        recorded: the job of a generated file has ended with it.
        review_state: what a person said of its job; None: nobody has.
        source_task_id: the caller's task, as the job had it; with its end.
        variant: the shop's, that it was made for; likewise.
        batch_id: of its job; likewise. Of an archive the batch it is of. 0: none.
    """

    id: int
    team: str
    kind: FileKind
    filename: str
    blob_key: str
    content: Content
    slot: Slot
    making: Making
    created_at: datetime
    recorded: bool
    review_state: ReviewState | None
    source_task_id: str
    variant: str
    batch_id: int

    @property
    def hidden(self) -> bool:
        """Where reviews decide what is shown: whether this is not, or not any more."""
        if self.kind is FileKind.ARCHIVE:  # made after the approval; it may be taken back
            return self.review_state is ReviewState.REJECTED
        return self.kind is FileKind.GENERATED and self.review_state is not ReviewState.APPROVED

    @property
    def derived(self) -> bool:
        """Whether it was made, of other files."""
        return self.kind is FileKind.GENERATED or self.batch_id != 0

    @property
    def of_live_job(self) -> bool:
        """Whether it is an output of a job that has not ended: lists hide it, and it may go."""
        return self.kind is FileKind.GENERATED and not self.recorded

    @property
    def upload_url(self) -> str:
        """The URL by which other requests may name it; empty for what is no image."""
        return f"/api/uploads/{self.id}/file" if self.kind in IMAGE_KINDS else ""


def blob_key(team: str, kind: FileKind, token: str) -> str:
    """The key of a new blob; unguessable, since `token` is.

    The team is in it as a hash: names of teams may hold characters that keys may not.
    """
    suffix = ".zip" if kind is FileKind.ARCHIVE else ""
    return f"{_team_folder(team)}/{_FOLDERS[kind]}/{token}{suffix}"


def raw_key(team: str, token: str) -> str:
    """The key of what is put by URL: apart from all files', for it never is one."""
    return f"{_team_folder(team)}/incoming/{token}"


def is_blob_key(key: str) -> bool:
    """Whether a key is of our making; the store may hold what is not ours."""
    return _BLOB_KEY.fullmatch(key) is not None


def is_archive_key(team: str, key: str) -> bool:
    """Whether a key is one that BeginArchive gave to this team."""
    folder = f"{_team_folder(team)}/{_FOLDERS[FileKind.ARCHIVE]}/"
    return is_blob_key(key) and key.startswith(folder)


def generated_filename(slot: Slot, content_type: str) -> str:
    """The name of a generated image, for people."""
    return f"job-{slot.job_id}-image-{slot.image_index}.{_EXTENSIONS[content_type]}"


def _team_folder(team: str) -> str:
    return hashlib.sha256(team.encode()).hexdigest()[:32]


class FolderKind(StrEnum):
    """What a folder is: made by the team, its default one, a batch's, or a variant's of a batch."""

    NAMED = "NAMED"
    DEFAULT = "DEFAULT"
    BATCH = "BATCH"
    BATCH_VARIANT = "BATCH_VARIANT"


@dataclass(frozen=True, slots=True)
class NewFolder:
    """A folder before it has an id; its key within the team is all but the name."""

    kind: FolderKind
    name: str
    batch_id: int = 0
    variant_index: int = 0


@dataclass(frozen=True, slots=True)
class Folder:
    """A set of files under a name; never renamed, never removed.

    Attributes:
        batch_id: the batch it belongs to; 0 for none.
        variant_index: the variant's place in that batch, from 1; 0 for none.
        file_count: visible files in it.
    """

    id: int
    name: str
    kind: FolderKind
    batch_id: int
    variant_index: int
    created_at: datetime
    file_count: int = 0


@dataclass(frozen=True, slots=True)
class Filing:
    """Where a job's images go, as enqueue says it; zeros and empty for what it does not.

    Attributes:
        folder_id: the folder its caller chose.
        batch_id: the batch it belongs to.
        batch_name: the batch's name.
        variant_index: its place in the batch, from 1.
        variant: the shop's variant.
    """

    folder_id: int = 0
    batch_id: int = 0
    batch_name: str = ""
    variant_index: int = 0
    variant: str = ""


@dataclass(frozen=True, slots=True)
class MoodboardContent:
    """What a moodboard holds: files whose mood is wanted or not, a scene, a person, words.

    Attributes:
        background_file_id: 0 for none.
        model_file_id: likewise.
    """

    name: str
    positive_file_ids: tuple[int, ...] = ()
    negative_file_ids: tuple[int, ...] = ()
    background_file_id: int = 0
    model_file_id: int = 0
    style_appendix: str = ""

    def file_ids(self) -> set[int]:
        """All its files."""
        single = {self.background_file_id, self.model_file_id} - {0}
        return {*self.positive_file_ids, *self.negative_file_ids, *single}


@dataclass(frozen=True, slots=True)
class Moodboard:
    """A kept moodboard; its revision grows with each change."""

    id: int
    content: MoodboardContent
    revision: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewVariant:
    """A variant of a product, as the shop puts it; image_file_id is 0 for none."""

    id: str
    product: str
    title: str
    image_file_id: int


@dataclass(frozen=True, slots=True)
class Variant(NewVariant):
    """A variant as it is kept."""

    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Candidates:
    """What could stand for a variant: its own image, and what was generated for it."""

    variant: Variant
    image: File | None
    generated: tuple[File, ...]
