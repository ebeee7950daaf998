"""Which zip an archive is: its entries in order, and where their bytes come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from isal import isal_zlib

from services.packager.domain import Archive, SourceImage
from services.packager.zipstream import (
    MANIFEST_NAME,
    ManifestImage,
    ZipEntry,
    ZipPlan,
    entry_names,
    manifest,
    plan,
)


@dataclass(frozen=True, slots=True)
class ZipWork:
    """A zip to write: its layout, and for each entry its bytes or the blob_url (a secret)."""

    plan: ZipPlan
    contents: tuple[bytes | str, ...] = field(repr=False)


def plan_zip(archive: Archive, images: Sequence[SourceImage]) -> ZipWork:
    """What the archive's zip is: `image-1.<ext>` … in order, then the manifest."""
    names = entry_names(image.content_type for image in images)
    listed = [
        ManifestImage(
            index=made.index,
            file_name=name,
            file_id=image.file_id,
            width=image.width,
            height=image.height,
            sha256=image.sha256,
            content_type=image.content_type,
        )
        for made, name, image in zip(archive.images, names, images, strict=True)
    ]
    last = manifest(archive.job_id, listed)
    entries = [
        ZipEntry(name, image.size_bytes, image.crc32)
        for name, image in zip(names, images, strict=True)
    ]
    entries.append(ZipEntry(MANIFEST_NAME, len(last), isal_zlib.crc32(last)))
    return ZipWork(plan(entries), (*(image.blob_url for image in images), last))
