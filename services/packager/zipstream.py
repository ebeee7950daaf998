"""A zip of known size, written front to back, and what goes into it.

`stream` and `stream_sync` push the entries' bytes through the layout that `plan` made, each
holding one chunk at a time, and check them on the way: what does not match ends the stream
before its central directory, so a wrong archive cannot be read, let alone published.
"""

from __future__ import annotations

import json
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import asdict, dataclass

from isal import isal_zlib

from libs.common.errors import DataLossError
from services.packager.ziplayout import ZipEntry, ZipPlan, checksum_error, plan, zip_size

__all__ = [
    "COALESCE_BYTES",
    "MANIFEST_NAME",
    "ManifestImage",
    "Piece",
    "ZipEntry",
    "ZipPlan",
    "entry_names",
    "manifest",
    "plan",
    "stream",
    "stream_sync",
    "zip_size",
]

COALESCE_BYTES = 64 * 1024  # below this a copy is cheaper than one more write
MANIFEST_NAME = "manifest.json"

_EXTENSIONS = {
    "image/avif": "avif",
    "image/gif": "gif",
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
}
_OTHER_EXTENSION = "bin"  # a new kind of image is still delivered, under an honest name

Piece = bytes | memoryview


@dataclass(frozen=True, slots=True)
class ManifestImage:
    """What the manifest says of one image.

    Attributes:
        index: 1..n within its job, variant or folder.
        file_name: the entry's name in the zip.
        file_id: the generated file's id.
        width: in pixels.
        height: in pixels.
        sha256: of its bytes, 64 lower-case hex digits.
        content_type: such as image/png.
        variant_index: of its variant in a batch, from 1; else 0, and left out.
        variant: the shop's word for that.
    """

    index: int
    file_name: str
    file_id: int
    width: int
    height: int
    sha256: str
    content_type: str
    variant_index: int = 0
    variant: str = ""


def entry_names(content_types: Iterable[str], prefix: str = "image") -> list[str]:
    """Names in order, numbered from 1: image-1.png, image-2.jpg and so on."""
    return [
        f"{prefix}-{number}.{_EXTENSIONS.get(content_type.lower(), _OTHER_EXTENSION)}"
        for number, content_type in enumerate(content_types, start=1)
    ]


def manifest(facts: Mapping[str, str], images: Sequence[ManifestImage]) -> bytes:
    """The content of MANIFEST_NAME: one line of JSON, equal for equal arguments.

    Args:
        facts: what the archive is of: `job_id`, `batch_id` or `folder_id`, and perhaps a `name`.
        images: in the zip's order.
    """
    rows = [_row(image) for image in images]
    whole = {**facts, "images": rows}
    return json.dumps(whole, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"


def _row(image: ManifestImage) -> dict[str, object]:
    row = asdict(image) | {"file_id": str(image.file_id)}
    if not image.variant_index:
        del row["variant_index"], row["variant"]
    return row


async def stream(
    plan: ZipPlan,
    open_entry: Callable[[int], AsyncIterator[Piece]],
    *,
    verify: bool = True,
) -> AsyncGenerator[Piece, None]:
    """The zip in pieces, `plan.size` bytes in all, one chunk of the entries held at a time.

    Chunks of COALESCE_BYTES and more are passed on uncopied, so a source that reuses its
    buffer needs a reader that is done with a piece before it asks for the next. The CRC runs
    on the event loop (below 0.2 ms per MiB): keep chunks small, or use `stream_sync` in a thread.

    What was written is a zip only if the iteration ends normally: publish it then, not before.
    Close the generator (`contextlib.aclosing`) when leaving early: it closes the open source.

    Args:
        plan: what to write.
        open_entry: the bytes of entry `index` (from 0), called when its turn comes; what it
            returns is closed at the end of the entry and after an error.
        verify: check the bytes of entries with a known CRC against it. Lengths are always
            checked, and CRCs that are not known always computed.

    Raises:
        DataLossError: an entry is shorter or longer than planned, or its CRC differs; no
            central directory was given out.
    """
    assembly = _Assembly(plan, verify=verify)
    piece: Piece
    for index in range(len(plan.entries)):
        assembly.begin(index)
        source = open_entry(index)
        try:
            async for chunk in source:
                for piece in assembly.feed(chunk):
                    yield piece
                chunk = piece = b""  # noqa: PLW2901  hold nothing while the next one is fetched
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()
        for piece in assembly.end():
            yield piece
    for piece in assembly.finish():
        yield piece


def stream_sync(
    plan: ZipPlan,
    open_entry: Callable[[int], Iterable[Piece]],
    *,
    verify: bool = True,
) -> Generator[Piece, None, None]:
    """The same bytes as `stream`, for a thread: the fast path.

    Arguments, promises and errors are those of `stream`.
    """
    assembly = _Assembly(plan, verify=verify)
    for index in range(len(plan.entries)):
        assembly.begin(index)
        source = open_entry(index)
        try:
            for chunk in source:
                yield from assembly.feed(chunk)
                chunk = b""  # noqa: PLW2901  hold nothing while the next one is fetched
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()
        yield from assembly.end()
    yield from assembly.finish()


class _Assembly:
    """What both streams share: which bytes come next, and whether they are the right ones.

    Small things (headers, descriptors, short chunks) gather in `_pending`, at most twice
    COALESCE_BYTES, and go out in front of the next large chunk.
    """

    def __init__(self, plan: ZipPlan, *, verify: bool) -> None:
        self._plan = plan
        self._verify = verify
        self._pending = bytearray()
        self._crcs: list[int] = []
        self._index = 0
        self._left = 0  # bytes the current entry still owes
        self._crc32 = 0
        self._computes = True

    def begin(self, index: int) -> None:
        entry = self._plan.entries[index]
        self._index = index
        self._left = entry.size
        self._crc32 = 0
        self._computes = self._verify or entry.crc32 is None
        self._pending += self._plan.local_header(index)

    def feed(self, chunk: Piece) -> Generator[Piece, None, None]:
        size = chunk.nbytes if isinstance(chunk, memoryview) else len(chunk)
        if size > self._left:
            raise _length_error(self._plan.entries[self._index])
        self._left -= size
        if self._computes:
            self._crc32 = isal_zlib.crc32(chunk, self._crc32)
        if size < COALESCE_BYTES:
            self._pending += chunk
            if len(self._pending) >= COALESCE_BYTES:
                yield self._flush()
            return
        if self._pending:
            yield self._flush()
        yield chunk

    def end(self) -> Generator[Piece, None, None]:
        entry = self._plan.entries[self._index]
        if self._left:
            raise _length_error(entry)
        if entry.crc32 is not None:
            if self._computes and self._crc32 != entry.crc32:
                raise checksum_error(entry)
            self._crc32 = entry.crc32
        self._crcs.append(self._crc32)
        self._pending += self._plan.descriptor(self._index, self._crc32)
        if len(self._pending) >= COALESCE_BYTES:  # a long row of empty entries feeds nothing
            yield self._flush()

    def finish(self) -> Generator[Piece, None, None]:
        self._pending += self._plan.trailer(self._crcs)
        yield self._flush()

    def _flush(self) -> bytes:
        piece = bytes(self._pending)
        self._pending.clear()
        return piece


def _length_error(entry: ZipEntry) -> DataLossError:
    return DataLossError(
        "a file of the archive does not have its recorded size", metadata={"entry": entry.name}
    )
