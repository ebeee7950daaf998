"""ResolveImages: every form a reference may take, and all it may not."""

from __future__ import annotations

import pytest

from contentshop.assets.v1 import backend_pb2
from libs.common.errors import (
    InvalidArgumentError,
)
from tests.fixtures import images
from tests.support.assets_house import (
    Backend,
    Team,
    reason_of,
)


async def test_references_are_resolved_in_order(red: Team, backend: Backend) -> None:
    one, two = await red.upload(), await red.upload(images.encoded("WEBP"))
    refs: list[int | str] = [
        two.id,
        one.upload_url,
        two.id,
        f"{one.upload_url}?v=1&sig=a%20b/c?d",
        f"https://shop.example{two.upload_url}",
        f"http://localhost:8080{one.upload_url}?x",
        f"HTTPS://Shop.EXAMPLE{one.upload_url}",
    ]
    found = await backend.resolve("red", *refs)
    wanted = [two.id, one.id, two.id, one.id, two.id, one.id, one.id]
    assert [image.file_id for image in found] == wanted
    assert await backend.resolve("red") == []


NOT_UPLOADS = [
    "",
    "/",
    "/api/uploads/{id}",
    "/api/uploads/{id}/file/",
    "/api/uploads/{id}/file#top",
    "/api/uploads/{id}/file?a#b",
    "/api/uploads/{id}/file?a b",
    "/api/uploads/{id}/file?a\\b",
    "/api/uploads/{id}/file\n",
    "/api/uploads/{id}/file?a\n",
    "/api/uploads//{id}/file",
    "//api/uploads/{id}/file",
    "/api/../api/uploads/{id}/file",
    "/api/uploads/./{id}/file",
    "/api/uploads/%31/file",
    "/api/uploads/{id}%2ffile",
    "/API/uploads/{id}/file",
    "api/uploads/{id}/file",
    "/api/uploads/0{id}/file",
    "/api/uploads/+{id}/file",
    "/api/uploads/-{id}/file",
    "/api/uploads/{id}.0/file",
    "/api/uploads/0/file",
    "/api/uploads/１/file",  # noqa: RUF001 - a digit, but no ASCII one
    "/api/uploads/9223372036854775808/file",
    "/api/uploads/99999999999999999999/file",
    "/api/uploads/{id}/file?" + "x" * 2048,
    "https://other.example/api/uploads/{id}/file",
    "https://shop.example:443/api/uploads/{id}/file",
    "https://shop.example:8080/api/uploads/{id}/file",
    "https://shop.example./api/uploads/{id}/file",
    "https://shop.example@evil.example/api/uploads/{id}/file",
    "https://evil.example@shop.example/api/uploads/{id}/file",
    "https://user:secret@shop.example/api/uploads/{id}/file",
    "https://shop.example\\@evil.example/api/uploads/{id}/file",
    "https://shop.example#@evil.example/api/uploads/{id}/file",
    "https://shop.example?/api/uploads/{id}/file",
    "https:///api/uploads/{id}/file",
    "https:/shop.example/api/uploads/{id}/file",
    "//shop.example/api/uploads/{id}/file",
    "ftp://shop.example/api/uploads/{id}/file",
    "file:///api/uploads/{id}/file",
    "data:image/png;base64,AAAA",
    "javascript:alert(1)",
    "http://localhost/api/uploads/{id}/file",
    "http://localhost:80/api/uploads/{id}/file",
    "http://127.0.0.1:8080/api/uploads/{id}/file",
    "http://[::1]:8080/api/uploads/{id}/file",
    "http://2130706433:8080/api/uploads/{id}/file",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.169.254/api/uploads/{id}/file",
    " https://shop.example/api/uploads/{id}/file",
    "https://shop.example/x/../api/uploads/{id}/file",
    "https://shop.example//api/uploads/{id}/file",
    "https://ѕhop.example/api/uploads/{id}/file",  # noqa: RUF001 - not the letter it seems
    "https://xn--hop-ueb.example/api/uploads/{id}/file",
]


async def test_every_bad_reference_is_named(red: Team, blue: Team, backend: Backend) -> None:
    mine, theirs = await red.upload(), await blue.upload()
    urls = [url.replace("{id}", str(mine.id)) for url in NOT_UPLOADS]
    refs: list[int | str] = [mine.id, *urls, theirs.id, theirs.upload_url, 0, -1, 999_999, mine.id]
    with pytest.raises(InvalidArgumentError) as caught:
        await backend.resolve("red", *refs, pin_token="pin-1")
    assert caught.value.reason == "BAD_IMAGE_REFERENCE"
    named = {v.field: v.reason for v in caught.value.violations}
    end = 1 + len(urls)
    assert named == {
        **{f"refs[{i}]": "IMAGE_NOT_AN_UPLOAD" for i in range(1, end)},
        f"refs[{end}]": "IMAGE_NOT_FOUND",
        f"refs[{end + 1}]": "IMAGE_NOT_FOUND",
        f"refs[{end + 2}]": "IMAGE_NOT_AN_UPLOAD",
        f"refs[{end + 3}]": "IMAGE_NOT_AN_UPLOAD",
        f"refs[{end + 4}]": "IMAGE_NOT_FOUND",
    }
    for url in urls:
        assert not url or url not in caught.value.message
    await red.delete(mine.id)  # nothing was pinned


async def test_requests_of_services_are_checked(backend: Backend, red: Team) -> None:
    file = await red.upload()
    many = await backend.resolve("red", *[file.id] * 2000, pin_token="pin-1")
    assert len(many) == 2000
    for team, refs, token in (
        ("red", [file.id] * 2001, ""),
        ("", [file.id], ""),
        ("red,blue", [file.id], ""),
        ("red", [file.id], "x" * 129),
    ):
        with pytest.raises(InvalidArgumentError):
            await backend.resolve(team, *refs, pin_token=token)
    nothing = backend_pb2.ResolveImagesRequest(team="red", refs=[backend_pb2.ImageRef()])
    assert await reason_of(backend.call("ResolveImages", nothing)) == "BAD_IMAGE_REFERENCE"


async def test_two_thousand_bad_references_get_an_answer(backend: Backend) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await backend.resolve("red", *range(1, 2001))
    assert caught.value.reason == "BAD_IMAGE_REFERENCE"
    assert caught.value.message.startswith("2000 ")
    assert [v.field for v in caught.value.violations[:2]] == ["refs[0]", "refs[1]"]
