from __future__ import annotations

from pathlib import Path

import pytest

from libs.common.blobs_open import (
    FileLocation,
    S3Location,
    open_blob_store,
    open_blob_urls,
    parse_blob_url,
)
from libs.common.blobs_s3 import attachment
from libs.common.clock import SystemClock
from libs.common.ids import SystemIds


def test_both_forms() -> None:
    assert parse_blob_url("file:///var/lib/a%20b") == FileLocation(Path("/var/lib/a b"))
    assert parse_blob_url(
        "s3://blobs?endpoint=http://s3:9000&region=eu-west-1&public_endpoint=https://s3.test"
    ) == S3Location("blobs", "http://s3:9000", "eu-west-1", "https://s3.test")
    assert parse_blob_url("s3://blobs?endpoint=https://s3.test/") == S3Location(
        "blobs", "https://s3.test", "us-east-1", ""
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "blobs",
        "/var/lib/blobs",
        "http://s3:9000/blobs",
        "file://var/lib/blobs",
        "file:///",
        "file:///blobs?x=1",
        "s3://blobs",
        "s3://?endpoint=http://s3:9000",
        "s3://Blobs?endpoint=http://s3:9000",
        "s3://blobs/path?endpoint=http://s3:9000",
        "s3://blobs?endpoint=s3:9000",
        "s3://blobs?endpoint=http://s3:9000/path",
        "s3://blobs?endpoint=http://key:hush@s3:9000",
        "s3://key:hush@blobs?endpoint=http://s3:9000",
        "s3://blobs?endpoint=http://s3:99999",
        "s3://blobs?endpoint=http://s3:9000&secret_key=hush",
        "s3://blobs?endpoint=http://s3:9000&endpoint=http://s3:9001",
        "s3://blobs?endpoint=http://s3:9000&region=EU%20west",
        "s3://blobs?endpoint=http://s3:9000&public_endpoint=s3.test",
        "s3://blobs?endpoint",
    ],
)
def test_mistakes_are_one_text_without_the_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"^BLOB_URL: .*It looks like file:///") as caught:
        parse_blob_url(url)
    assert "hush" not in str(caught.value)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"bucket name.*endpoint must.*region must"):
        parse_blob_url("s3://B?endpoint=x&region=_")


def test_s3_needs_keys_but_its_urls_do_not() -> None:
    url = "s3://blobs?endpoint=http://s3:9000"
    with pytest.raises(ValueError, match="access key"):
        open_blob_store(url, clock=SystemClock(), ids=SystemIds(), access_key="only")
    open_blob_urls(url, clock=SystemClock(), ids=SystemIds())


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("a.png", "attachment; filename=\"a.png\"; filename*=UTF-8''a.png"),
        ("../..", "attachment; filename=\"download\"; filename*=UTF-8''download"),
        ('a"\r\nX: y', "attachment; filename=\"aX: y\"; filename*=UTF-8''aX%3A%20y"),
        ("\u202egnp.exe", "attachment; filename=\"gnp.exe\"; filename*=UTF-8''gnp.exe"),
    ],
)
def test_attachment_names_cannot_break_the_header(filename: str, expected: str) -> None:
    assert attachment(filename) == expected
