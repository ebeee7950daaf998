"""Which zip an archive is: its entries in order, and where their bytes come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from isal import isal_zlib

from services.packager.domain import Attempt, SourceImage, SourceKind, check_zip_size
from services.packager.zipnames import folder_names
from services.packager.zipstream import (
    MANIFEST_NAME,
    ManifestImage,
    ZipEntry,
    ZipPlan,
    entry_names,
    manifest,
    plan,
)

_ID_NAMES = {
    SourceKind.JOB: "job_id",
    SourceKind.BATCH: "batch_id",
    SourceKind.FOLDER: "folder_id",
}


@dataclass(frozen=True, slots=True)
class ZipWork:
    """A zip to write: its layout, and for each entry its bytes or the blob_url (a secret)."""

    plan: ZipPlan
    contents: tuple[bytes | str, ...] = field(repr=False)


def plan_zip(attempt: Attempt, images: Sequence[SourceImage]) -> ZipWork:
    """What the archive's zip is: the images in order, then the manifest.

    `image-1.<ext>` and so on; of a batch in a folder per variant.

    Raises:
        FailedPreconditionError: ARCHIVE_TOO_LARGE.
    """
    archive, contents = attempt.archive, attempt.contents
    listed = list(_listed(attempt, images))
    # Ids are strings, as in protobuf's JSON: an int64 does not survive JavaScript's numbers.
    facts = {_ID_NAMES[archive.source.kind]: str(archive.source.id)}
    if contents.name:
        facts["name"] = contents.name
    last = manifest(facts, listed)
    entries = [
        ZipEntry(made.file_name, image.size_bytes, image.crc32)
        for made, image in zip(listed, images, strict=True)
    ]
    entries.append(ZipEntry(MANIFEST_NAME, len(last), isal_zlib.crc32(last)))
    layout = plan(entries)
    check_zip_size(layout.size)
    return ZipWork(layout, (*(image.blob_url for image in images), last))


def _listed(attempt: Attempt, images: Sequence[SourceImage]) -> Iterator[ManifestImage]:
    """What the manifest says of each image, in the zip's order."""
    sections = attempt.contents.sections
    in_folders = attempt.archive.source.kind is SourceKind.BATCH
    folders = folder_names(sections, taken=[MANIFEST_NAME]) if in_folders else [""]
    start = 0
    for section, folder in zip(sections, folders, strict=True):
        found = images[start : start + len(section.images)]
        start += len(section.images)
        prefix = f"{folder}/image" if folder else "image"
        names = entry_names((image.content_type for image in found), prefix)
        for made, name, image in zip(section.images, names, found, strict=True):
            yield ManifestImage(
                index=made.index,
                file_name=name,
                file_id=image.file_id,
                width=image.width,
                height=image.height,
                sha256=image.sha256,
                content_type=image.content_type,
                variant_index=section.variant_index,
                variant=section.variant,
            )
