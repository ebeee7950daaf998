from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import DataLossError, InternalError
from services.packager.zipstream import ZipEntry, plan, zip_size


class Virtual:
    """A zip of which only headers exist: local headers and trailer, no bytes between."""

    def __init__(self, entries: list[ZipEntry]) -> None:
        self.layout = plan(entries)
        self.trailer = self.layout.trailer([entry.crc32 or 0 for entry in entries])

    def size(self) -> int:
        """From the parts, by another road than the plan's sum."""
        position = 0
        for index, entry in enumerate(self.layout.entries):
            assert self.layout.offsets[index] == position
            position += len(self.layout.local_header(index)) + entry.size
            position += len(self.layout.descriptor(index, 0))
        assert position == self.layout.directory_offset
        return position + len(self.trailer)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(
                st.integers(0, 2**34), st.integers(2**32 - 60, 2**32 + 60), st.integers(0, 99)
            ),
            st.sampled_from([None, 0, 0xFFFF_FFFF]),
        ),
        max_size=8,
    )
)
def test_size_is_exact_around_four_gib(rows: list[tuple[int, int | None]]) -> None:
    entries = [ZipEntry(f"image-{n}.png", *row) for n, row in enumerate(rows)]
    assert Virtual(entries).size() == zip_size(entries)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [2**32 - 2, 2**32 - 1, 2**32])
def test_an_entry_is_zip64_exactly_from_four_gib_minus_one(size: int, *, known: bool) -> None:
    layout = plan([ZipEntry("a", size, 7 if known else None)])
    wide = size >= 2**32 - 1
    header = layout.local_header(0)
    assert len(header) == 31 + (20 if wide else 0)
    assert header[4] == (45 if wide else 10 if known else 20)
    assert len(layout.descriptor(0, 7)) == (0 if known else 24 if wide else 16)


@pytest.mark.parametrize("offset", [2**32 - 2, 2**32 - 1])
def test_an_offset_is_zip64_exactly_from_four_gib_minus_one(offset: int) -> None:
    first = offset - 31  # one local header with a one-letter name
    layout = plan([ZipEntry("a", first, 7), ZipEntry("b", 1, 7)])
    assert layout.offsets[1] == offset
    wide = offset >= 2**32 - 1
    trailer = layout.trailer([7, 7])
    second = trailer[47:]
    assert second[6] == (45 if wide else 10)
    assert second[30] == (12 if wide else 0)
    assert layout.local_header(1)[4] == 10
    assert (b"PK\x06\x06" in trailer) == (layout.directory_offset >= 2**32 - 1)


@pytest.mark.parametrize("directory_offset", [2**32 - 2, 2**32 - 1])
def test_the_end_is_zip64_exactly_when_the_directory_starts_too_late(directory_offset: int) -> None:
    layout = plan([ZipEntry("a", directory_offset - 31, 7)])
    assert layout.directory_offset == directory_offset
    assert (b"PK\x06\x06" in layout.trailer([7])) == (directory_offset >= 2**32 - 1)


def test_a_trailer_may_not_contradict_its_headers() -> None:
    with pytest.raises(DataLossError):
        plan([ZipEntry("a", 1, 5)]).trailer([6])


# Names


HOSTILE = [
    "",
    "/etc/passwd",
    "../up.png",
    "a/../b.png",
    "a..b",
    ".",
    "./a",
    "a/",
    "a//b",
    "a\\b",
    "C:a",
    "a b",
    "a\n",
    "a\0b",
    "bild-\u00e4.png",
    "a.",
    "a/b./c",
    "x" * 256,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(InternalError) as caught:
        plan([ZipEntry("fine.png", 1, None), ZipEntry(name, 1, None)])
    assert caught.value.message == "archive entry 1 has a name that is not allowed"


@pytest.mark.parametrize("name", ["image-1.png", "a/b/c-1.tar.gz", ".hidden", "_", "x" * 255])
def test_our_names_are_fine(name: str) -> None:
    assert plan([ZipEntry(name, 1, None)]).entries[0].name == name


@pytest.mark.parametrize("names", [("a", "a"), ("a.png", "A.PNG"), ("a", "A/b"), ("a/b", "a")])
def test_names_that_would_overwrite_each_other_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(InternalError):
        plan([ZipEntry(name, 1, None) for name in names])


@pytest.mark.parametrize(
    "entry", [ZipEntry("a", -1, None), ZipEntry("a", 1, 2**32), ZipEntry("a", 1, -1)]
)
def test_impossible_entries_are_refused(entry: ZipEntry) -> None:
    with pytest.raises(InternalError):
        plan([entry])


def test_an_impossible_total_is_refused() -> None:
    with pytest.raises(InternalError):
        zip_size([ZipEntry("a", 2**63, None)])
