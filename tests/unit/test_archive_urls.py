"""Presigned URLs run out: a long build asks for those to come anew, an ordinary one does not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from libs.common.errors import FailedPreconditionError, NotFoundError
from services.packager.domain import (
    MAX_ZIP_BYTES,
    Reason,
    SourceImage,
    check_zip_size,
    gives_up,
)
from services.packager.usecases.building import URL_SECONDS, URL_WINDOW, FreshUrls
from tests.fakes.clock import ManualClock

IDS = list(range(1, 2 * URL_WINDOW + 2))


class _Assets:
    """Resolves any id, and says in the URL which call it was."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.gone: set[int] = set()

    async def resolve(self, file_ids: Sequence[int]) -> list[SourceImage]:
        if self.gone.intersection(file_ids):
            raise NotFoundError("image")
        self.asked.append(list(file_ids))
        call = len(self.asked)
        return [SourceImage(n, f"{n}?call={call}", "image/png", 1, 1, 1, "", 0) for n in file_ids]


async def test_young_urls_are_not_asked_for_again() -> None:
    clock, assets = ManualClock(), _Assets()
    urls = FreshUrls(assets.resolve, await assets.resolve(IDS), clock)
    clock.move(URL_SECONDS)
    assert [await urls(n) for n in range(len(IDS))] == [f"{n}?call=1" for n in IDS]
    assert len(assets.asked) == 1


async def test_old_urls_are_replaced_by_windows() -> None:
    clock, assets = ManualClock(), _Assets()
    urls = FreshUrls(assets.resolve, await assets.resolve(IDS), clock)
    assert await urls(0) == "1?call=1"
    clock.move(URL_SECONDS + 1)
    got = [await urls(n) for n in range(1, len(IDS))]
    assert [url.split("?")[0] for url in got] == [str(n) for n in IDS[1:]]
    assert got[0].endswith("call=2")
    assert [asked[0] for asked in assets.asked] == [1, 2, 2 + URL_WINDOW]
    assert [len(asked) for asked in assets.asked] == [len(IDS), URL_WINDOW, URL_WINDOW]


async def test_an_image_deleted_meanwhile_is_missing() -> None:
    clock, assets = ManualClock(), _Assets()
    urls = FreshUrls(assets.resolve, await assets.resolve(IDS), clock)
    clock.move(URL_SECONDS + 1)
    assets.gone = {IDS[3]}
    with pytest.raises(NotFoundError):
        await urls(3)


def test_a_zip_no_store_takes_is_given_up_at_once() -> None:
    check_zip_size(MAX_ZIP_BYTES)
    with pytest.raises(FailedPreconditionError) as raised:
        check_zip_size(MAX_ZIP_BYTES + 1)
    assert raised.value.reason == Reason.TOO_LARGE
    assert gives_up(Reason.TOO_LARGE, 1, 5)
    assert not gives_up(Reason.DATA_LOSS, 1, 5)
    assert gives_up(Reason.DATA_LOSS, 2, 5)
    assert not gives_up(Reason.INPUT_MISSING, 4, 5)
