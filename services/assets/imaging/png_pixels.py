"""PNG pixels, checked without being held: inflate, count, look at each row's filter, forget.

A PNG is whole when its compressed stream ends exactly with its last byte, passes its checksum,
and holds exactly the rows the header promises, each with a known filter. Decoding to a picture
would find no more, and would need memory for every pixel; this needs 256 KiB for any size.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.assets.imaging import refusals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What is handed in at once is copied when the output limit stops the inflater in the middle of
# it; small pieces keep that cheap.
_INPUT_BYTES = 16 * 1024
_OUTPUT_BYTES = 256 * 1024

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_FILTERS = bytes(range(5))
# Adam7, as (first column, first row, column step, row step) of each pass.
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


@dataclass(frozen=True, slots=True)
class PngHeader:
    """The facts of an IHDR chunk; sides in pixels, depth in bits per channel."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool


def check_pixels(header: PngHeader, pieces: Iterable[memoryview]) -> None:
    """Refuse pixel data that is not exactly the image the header promises.

    Raises:
        InvalidArgumentError: IMAGE_CORRUPT, or TRAILING_DATA for bytes behind the stream or
            rows behind the last one.
    """
    inflater = zlib.decompressobj()
    rows = _Rows(header)
    try:
        for piece in pieces:
            for start in range(0, len(piece), _INPUT_BYTES):
                _inflate(inflater, piece[start : start + _INPUT_BYTES], rows)
        rows.take(inflater.flush())
    except zlib.error:
        raise refusals.corrupt() from None
    if not inflater.eof or not rows.complete:
        raise refusals.corrupt()


def _inflate(inflater: zlib._Decompress, data: memoryview, rows: _Rows) -> None:
    if inflater.eof:
        raise refusals.trailing()
    rows.take(inflater.decompress(data, _OUTPUT_BYTES))
    while inflater.unconsumed_tail:
        rows.take(inflater.decompress(inflater.unconsumed_tail, _OUTPUT_BYTES))
    if inflater.unused_data:
        raise refusals.trailing()


class _Rows:
    """Counts rows as they come, and checks the filter byte that begins each."""

    def __init__(self, header: PngHeader) -> None:
        self._passes = _passes(header)
        self._row_bytes, rows = next(self._passes)
        self._left = self._row_bytes * rows
        self.complete = False

    def take(self, data: bytes) -> None:
        """The next bytes of the image; they may end anywhere."""
        start = 0
        while start < len(data):
            if self.complete:
                raise refusals.trailing()
            count = min(len(data) - start, self._left)
            # What is left of a pass is whole rows and the rest of the row we are in.
            first = start + self._left % self._row_bytes
            if data[first : start + count : self._row_bytes].translate(None, _FILTERS):
                raise refusals.corrupt()
            start += count
            self._left -= count
            if self._left == 0:
                self._next_pass()

    def _next_pass(self) -> None:
        following = next(self._passes, None)
        if following is None:
            self.complete = True
            return
        self._row_bytes, rows = following
        self._left = self._row_bytes * rows


def _passes(header: PngHeader) -> Iterator[tuple[int, int]]:
    """(bytes per row with its filter byte, rows) of each pass that has any pixels."""
    bits = _CHANNELS[header.colour] * header.depth
    for column, row, column_step, row_step in _ADAM7 if header.interlaced else ((0, 0, 1, 1),):
        width = -((column - header.width) // column_step)
        height = -((row - header.height) // row_step)
        if width > 0 and height > 0:
            yield 1 + (width * bits + 7) // 8, height
