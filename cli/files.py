"""Files in and out: photos named on the command line, images and zips to a folder."""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cli.connection import BACKOFF, TRIES, Connection
from cli.errors import CliError, ExitCode, NotRunningError
from contentshop.assets.v1 import assets_pb2, backend_pb2
from contentshop.enqueue.v1 import job_pb2
from contentshop.packager.v1 import packager_pb2
from libs.common.errors import (
    AlreadyExistsError,
    ContentshopError,
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)

CHUNK_BYTES = 512 * 1024
UPLOAD_SECONDS = 300.0
AT_ONCE = 4
_SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_ZIP_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}\.zip")
# What a single image of many may be refused with, and what says that nothing was enqueued.
_REFUSALS = (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
_UPLOAD_URL = re.compile(r"(https?://[^/]+)?/api/uploads/\d+/file(\?.*)?")


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file we wrote: an image (with its index) or a zip (index 0)."""

    kind: str
    index: int
    path: str
    size_bytes: int
    width: int = 0
    height: int = 0

    def payload(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Photo:
    """A local photo: where, how long, and the SHA-256 of its bytes in hex."""

    path: Path
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Its name, as text that can be sent."""
        return self.path.name.encode("utf-8", "replace").decode("utf-8")


def read_photo(path: Path) -> Photo:
    """The photo's facts; CliError when it cannot be read. The server judges what is in it."""
    if not path.exists():
        raise _bad_file(path, "there is no such file")
    if not path.is_file():
        raise _bad_file(path, "it is not a file")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Photo(path, path.stat().st_size, digest)
    except OSError as error:
        raise _bad_file(path, error.strerror or "it cannot be read") from None


def _bad_file(path: Path, why: str) -> CliError:
    return CliError(f"{path}: {why}", ExitCode.USAGE, reason="BAD_FILE")


async def upload(shop: Connection, photo: Photo, request_id: str) -> assets_pb2.File:
    """Stores one photo; sent again with the same request_id while the server is away."""
    header = assets_pb2.UploadHeader(
        filename=photo.name, size_bytes=photo.size, sha256=photo.sha256, request_id=request_id
    )

    async def messages() -> AsyncIterator[assets_pb2.UploadFileRequest]:
        yield assets_pb2.UploadFileRequest(header=header)
        with await asyncio.to_thread(photo.path.open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield assets_pb2.UploadFileRequest(chunk=chunk)

    try:
        answer = await shop.assets.unary(
            lambda stub: stub.UploadFile, messages, timeout_seconds=UPLOAD_SECONDS
        )
    except InvalidArgumentError as error:
        # Which of several photos it was is what a person needs to know.
        raise InvalidArgumentError(
            f"{photo.path} was refused: {error.message} ({error.reason})",
            reason=error.reason,
            metadata=error.metadata,
        ) from None
    file: assets_pb2.File = answer.file
    return file


class Uploader:
    """Turns what was typed into image references; each photo is uploaded once.

    Args:
        shop: where to.
        key: from which each upload's request_id is made, so that asking again with the same
            key names the same files.
        uploaded: told of each stored photo.
    """

    def __init__(
        self, shop: Connection, key: str, uploaded: Callable[[Photo, assets_pb2.File], None]
    ) -> None:
        self._shop = shop
        self._key = key
        self._uploaded = uploaded
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._stored: dict[str, int] = {}  # SHA-256 → file id

    async def refs(self, given: Sequence[str]) -> list[backend_pb2.ImageRef]:
        """One reference for each `FILE`, id or upload URL, in order; all are looked at first.

        The same bytes are uploaded once, a few photos at a time.
        """
        parsed = await asyncio.to_thread(lambda: [_parse(one) for one in given])
        photos = {one.sha256: one for one in parsed if isinstance(one, Photo)}
        async with asyncio.TaskGroup() as group:
            for photo in photos.values():
                if photo.sha256 not in self._stored:
                    group.create_task(self._store(photo))
        return [
            backend_pb2.ImageRef(file_id=self._stored[one.sha256])
            if isinstance(one, Photo)
            else one
            for one in parsed
        ]

    async def _store(self, photo: Photo) -> None:
        text = f"{self._key}/{photo.name}/{photo.sha256}"
        request_id = hashlib.sha256(text.encode()).hexdigest()[:32]
        async with self._at_once:
            file = await upload(self._shop, photo, request_id)
        self._stored[photo.sha256] = file.id
        self._uploaded(photo, file)

    @asynccontextmanager
    async def undone_if_refused(self) -> AsyncIterator[None]:
        """Deletes what was uploaded when the block is refused; not when its end is not known."""
        try:
            yield
        except BaseException as error:
            if was_refused(error):
                await self.undo()
            raise

    async def undo(self) -> None:
        """Deletes what was uploaded, as far as that goes: nobody else knows of it."""
        while self._stored:
            _, file_id = self._stored.popitem()
            request = assets_pb2.DeleteFileRequest(file_id=file_id)
            with suppress(ContentshopError, CliError):
                await self._shop.assets.unary(lambda stub: stub.DeleteFile, request)


def was_refused(error: BaseException) -> bool:
    """Whether an answer (of a group: all of them) says that nothing was done."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(was_refused, error.exceptions))
    return isinstance(error, (*_REFUSALS, CliError)) and not isinstance(error, NotRunningError)


def _parse(given: str) -> Photo | backend_pb2.ImageRef:
    if given.isascii() and given.isdigit():
        if not 1 <= int(given) < 2**63:
            raise CliError(f"{given} is not an id", ExitCode.USAGE, reason="BAD_ID")
        return backend_pb2.ImageRef(file_id=int(given))
    if _UPLOAD_URL.fullmatch(given):
        return backend_pb2.ImageRef(upload_url=given)
    return read_photo(Path(given))


async def save_images(
    shop: Connection, job: job_pb2.Job, folder: Path
) -> tuple[list[SavedFile], dict[int, str]]:
    """Saves the job's images as image-N.ext, checked by their SHA-256; whole files only.

    One that is damaged, deleted or hidden costs nobody the others: it is answered by its index,
    with the reason.
    """
    make_folder(folder)
    at_once = asyncio.Semaphore(AT_ONCE)
    missing: dict[int, str] = {}

    async def save(image: job_pb2.Image) -> SavedFile | None:
        suffix = _SUFFIXES.get(image.content_type, "bin")
        path = folder / f"image-{image.index}.{suffix}"
        request = assets_pb2.DownloadFileRequest(file_id=image.file_id)
        try:
            async with at_once:
                size = await _save(
                    lambda: shop.assets.stream(lambda stub: stub.DownloadFile, request), path, shop
                )
        except (DataLossError, NotFoundError, FailedPreconditionError) as error:
            missing[image.index] = error.reason
            return None
        return SavedFile("image", image.index, str(path), size, image.width, image.height)

    done = [image for image in job.images if image.state == job_pb2.IMAGE_STATE_DONE]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(save(image)) for image in done]
    return [saved for task in tasks if (saved := task.result())], missing


async def save_zip(
    shop: Connection, request: packager_pb2.DownloadArchiveRequest, name: str, folder: Path
) -> SavedFile:
    """Saves a zip under its own name."""
    make_folder(folder)
    # The name comes over the wire: it must not be a path.
    path = folder / (name if _ZIP_NAME.fullmatch(name) else "images.zip")
    size = await _save(
        lambda: shop.packager.stream(lambda stub: stub.DownloadArchive, request), path, shop
    )
    return SavedFile("zip", 0, str(path), size)


def make_folder(folder: Path) -> None:
    """Makes the folder for outputs, and tries it; CliError when it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CliError(
            f"{folder} cannot be used for the images: {error.strerror}",
            ExitCode.USAGE,
            hint="Choose another folder with --out.",
            reason="BAD_FOLDER",
        ) from None


async def _save(
    open_stream: Callable[[], AsyncGenerator[Any, None]], path: Path, shop: Connection
) -> int:
    """The bytes of a download in a file that appears whole; tried again from its start."""
    part = path.with_name(f".{path.name}.part")
    failures = 0
    try:
        while True:
            try:
                with part.open("wb") as file:
                    size = await _receive(open_stream(), file)
                part.replace(path)
            except (UnavailableError, NotRunningError):
                failures += 1
                if failures == TRIES:
                    raise
            else:
                return size
            await asyncio.sleep(BACKOFF.wait(failures, shop.ids))
    finally:
        part.unlink(missing_ok=True)


async def _receive(stream: AsyncGenerator[Any, None], file: BinaryIO) -> int:
    facts: Any = None
    digest = hashlib.sha256()
    size = 0
    async with aclosing(stream) as responses:
        async for response in responses:
            if response.WhichOneof("part") != "chunk":
                facts = getattr(response, response.WhichOneof("part"))
                continue
            digest.update(response.chunk)
            size += len(response.chunk)
            await asyncio.to_thread(file.write, response.chunk)
    expected = getattr(facts, "sha256", "")  # archives say their size alone
    if facts is None or size != facts.size_bytes or expected not in ("", digest.hexdigest()):
        raise DataLossError("what came is not what was stored", reason="DATA_LOSS")
    return size
