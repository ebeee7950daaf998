"""AssetsBackendService: the door for the other services; every call names the team."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from contentshop.assets.v1 import backend_pb2, backend_pb2_grpc
from libs.common.checks import MAX_ID, Violations, checking
from services.assets.domain import ARCHIVE_TYPE, Content, FileKind, NewFile, Slot
from services.assets.filenames import clean_filename
from services.assets.receiving import Pace
from services.assets.servicer.convert import moodboard_content, resolved_image
from services.assets.servicer.headers import (
    check_filename,
    check_sha256,
    check_team,
    generated_of,
)
from services.assets.servicer.streams import PartStream
from services.assets.upload_urls import UploadUrls
from services.assets.usecases import archiving
from services.assets.usecases.deps import Deps
from services.assets.usecases.filing import list_folder_images
from services.assets.usecases.generating import StoreGenerated
from services.assets.usecases.jobs import unheard_endings
from services.assets.usecases.resolving import ResolveImages, Wanted, readable

MAX_REFS = 2_000
MAX_PIN_TOKEN_CHARS = 128
MAX_PINS = 100
MAX_BLOB_KEY_CHARS = 512
MAX_ENDINGS = 500
MAX_ARCHIVE_BYTES = 5 * 1024**3  # what S3 takes in one PUT


class AssetsBackendServicer(backend_pb2_grpc.AssetsBackendServiceServicer):
    """Requests of services, trusted by their scope."""

    def __init__(
        self,
        deps: Deps,
        resolve: ResolveImages,
        generate: StoreGenerated,
        urls: UploadUrls,
        pace: Pace,
    ) -> None:
        self._deps = deps
        self._resolve = resolve
        self._generate = generate
        self._urls = urls
        self._pace = pace

    async def ResolveImages(
        self, request: backend_pb2.ResolveImagesRequest, context: Any
    ) -> backend_pb2.ResolveImagesResponse:
        """References to files and where to read them."""
        with checking() as check:
            check_team(check, request.team)
            check.check(len(request.refs) <= MAX_REFS, "refs", f"takes at most {MAX_REFS}")
            pins = _pins(request, check)
            check.within(request.moodboard_id, 0, MAX_ID, "moodboard_id")
            check.within(request.folder_id, 0, MAX_ID, "folder_id")
        wanted = Wanted(
            file_ids=[self._file_id(ref) for ref in request.refs],
            moodboard_id=request.moodboard_id,
            folder_id=request.folder_id,
            pins=pins,
        )
        resolved = await self._resolve(request.team, wanted)
        moodboard = resolved.moodboard
        return backend_pb2.ResolveImagesResponse(
            images=[resolved_image(image) for image in resolved.images],
            moodboard=None if moodboard is None else moodboard_content(moodboard),
        )

    def _file_id(self, ref: backend_pb2.ImageRef) -> int | None:
        """The id a reference names; None when it is not of a form we take."""
        if ref.WhichOneof("ref") == "upload_url":
            return self._urls.file_id(ref.upload_url)
        return ref.file_id if ref.file_id > 0 else None

    async def StoreGenerated(
        self, request_iterator: AsyncIterator[backend_pb2.StoreGeneratedRequest], context: Any
    ) -> backend_pb2.StoreGeneratedResponse:
        """Stores one generated image."""
        stream: PartStream[backend_pb2.StoreGeneratedHeader] = PartStream(
            request_iterator, self._pace
        )
        image = generated_of(await stream.header(), self._deps.figures.generated.max_bytes)
        stored = await self._generate(image, stream)
        return backend_pb2.StoreGeneratedResponse(
            image=resolved_image(readable(self._deps, stored.file)),
            already_stored=stored.already,
        )

    async def BeginArchive(
        self, request: backend_pb2.BeginArchiveRequest, context: Any
    ) -> backend_pb2.BeginArchiveResponse:
        """Where a zip may be written."""
        with checking() as check:
            check_team(check, request.team)
            check.within(request.size_bytes, 1, MAX_ARCHIVE_BYTES, "size_bytes")
        blob = archiving.begin_archive(self._deps, request.team)
        return backend_pb2.BeginArchiveResponse(blob_key=blob.blob_key, write_url=blob.write_url)

    async def StoreArchive(
        self, request: backend_pb2.StoreArchiveRequest, context: Any
    ) -> backend_pb2.StoreArchiveResponse:
        """Makes a written zip a file."""
        with checking() as check:
            check_team(check, request.team)
            check.text(request.blob_key, MAX_BLOB_KEY_CHARS, "blob_key", required=True)
            check_filename(check, request.filename, "filename")
            check.within(request.size_bytes, 1, MAX_ARCHIVE_BYTES, "size_bytes")
            check_sha256(check, request.sha256, "sha256")
            for of in ("job_id", "batch_id", "folder_id"):
                check.within(getattr(request, of), 0, MAX_ID, of)
        content = Content(
            content_type=ARCHIVE_TYPE,
            size_bytes=request.size_bytes,
            width=0,
            height=0,
            sha256=request.sha256.lower(),
            crc32=request.crc32,
        )
        archive = NewFile(
            team=request.team,
            kind=FileKind.ARCHIVE,
            filename=clean_filename(request.filename, "filename"),
            blob_key=request.blob_key,
            content=content,
            slot=Slot(job_id=request.job_id),
            batch_id=request.batch_id,
        )
        file = await archiving.store_archive(self._deps, archive)
        return backend_pb2.StoreArchiveResponse(file_id=file.id)

    async def ListFolderImages(
        self, request: backend_pb2.ListFolderImagesRequest, context: Any
    ) -> backend_pb2.ListFolderImagesResponse:
        """The images of a folder, for its zip."""
        with checking() as check:
            check_team(check, request.team)
            check.id(request.folder_id, "folder_id")
        images = await list_folder_images(self._deps, request.team, request.folder_id)
        return backend_pb2.ListFolderImagesResponse(name=images.name, file_ids=images.file_ids)

    async def ListUnheardEndings(
        self, request: backend_pb2.ListUnheardEndingsRequest, context: Any
    ) -> backend_pb2.ListUnheardEndingsResponse:
        """Jobs whose end, or whose review, was not heard here."""
        with checking() as check:
            check_team(check, request.team)
            few = len(request.jobs) <= MAX_ENDINGS
            if check.check(few, "jobs", f"takes at most {MAX_ENDINGS}"):
                for n, job in enumerate(request.jobs):
                    check.id(job.job_id, f"jobs[{n}].job_id")
                    check.within(job.review_time_us, 0, MAX_ID, f"jobs[{n}].review_time_us")
        reviews = {job.job_id: job.review_time_us for job in request.jobs}
        unheard = await unheard_endings(self._deps, request.team, reviews)
        return backend_pb2.ListUnheardEndingsResponse(job_ids=unheard)

    async def ResolveArchive(
        self, request: backend_pb2.ResolveArchiveRequest, context: Any
    ) -> backend_pb2.ResolveArchiveResponse:
        """An archive's facts and where to read it."""
        with checking() as check:
            check_team(check, request.team)
            check.id(request.file_id, "file_id")
        archive = await archiving.resolve_archive(self._deps, request.team, request.file_id)
        return backend_pb2.ResolveArchiveResponse(
            blob_url=archive.blob_url,
            filename=archive.file.filename,
            size_bytes=archive.file.content.size_bytes,
            sha256=archive.file.content.sha256,
        )


def _pins(request: backend_pb2.ResolveImagesRequest, check: Violations) -> dict[str, list[int]]:
    """Under which tokens which of the references are to be pinned."""
    check.text(request.pin_token, MAX_PIN_TOKEN_CHARS, "pin_token")
    if request.pin_token:
        check.check(not request.pins, "pins", "stands in place of pin_token")
        return {request.pin_token: list(range(len(request.refs)))}
    if not check.check(len(request.pins) <= MAX_PINS, "pins", f"takes at most {MAX_PINS}"):
        return {}
    found: dict[str, list[int]] = {}
    for n, job in enumerate(request.pins):
        path = f"pins[{n}]"
        check.text(job.pin_token, MAX_PIN_TOKEN_CHARS, f"{path}.pin_token", required=True)
        check.check(job.pin_token not in found, f"{path}.pin_token", "was given before")
        few = check.check(len(job.refs) <= MAX_PINS, f"{path}.refs", f"takes at most {MAX_PINS}")
        if few and all(0 <= ref < len(request.refs) for ref in job.refs):
            found[job.pin_token] = list(job.refs)
        elif few:
            check.add(f"{path}.refs", "names a reference that is not there")
    return found
