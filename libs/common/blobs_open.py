"""From a BLOB_URL to a blob store: the only place that chooses between disk and S3."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from libs.common.blobs import BlobStore, BlobUrls
from libs.common.clock import Clock
from libs.common.crash import CrashPoints
from libs.common.ids import Ids

FORMS = (
    "file:///absolute/folder or "
    "s3://bucket?endpoint=http://host:port&region=us-east-1&public_endpoint=https://host"
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_OPTIONS = {"endpoint", "region", "public_endpoint"}


@dataclass(frozen=True, slots=True)
class FileLocation:
    """A folder on a local disk."""

    root: Path


@dataclass(frozen=True, slots=True)
class S3Location:
    """A bucket of an S3.

    Attributes:
        bucket: its name.
        endpoint: `http(s)://host[:port]` as services reach it.
        region: signatures name it.
        public_endpoint: as browsers reach it.
    """

    bucket: str
    endpoint: str
    region: str
    public_endpoint: str


def parse_blob_url(url: str) -> FileLocation | S3Location:
    """What a BLOB_URL means.

    Raises:
        ValueError: one text with every mistake, and no byte of the URL, which might hold a secret.
    """
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _mistake(["it is not a URL"]) from None
    if parts.scheme == "file":
        return _file_location(url)
    if parts.scheme == "s3":
        return _s3_location(parts.netloc, parts.path or parts.fragment, options)
    raise _mistake(["it begins with neither file:// nor s3://"])


def open_blob_store(
    url: str,
    *,
    clock: Clock,
    ids: Ids,
    access_key: str = "",
    secret_key: str = "",
    create_bucket: bool = False,
    crash: CrashPoints | None = None,
) -> BlobStore:
    """The blob store of a BLOB_URL; nothing is opened before its `start`.

    Args:
        url: in one of FORMS.
        clock: dates signatures.
        ids: temporary names and jitter.
        access_key: for s3://, never in the URL.
        secret_key: for s3://, never in the URL.
        create_bucket: whether `start` makes a missing bucket.
        crash: A2 is in the middle of each part of a put.

    Raises:
        ValueError: one text with every mistake.
    """
    place = parse_blob_url(url)
    if isinstance(place, FileLocation):
        from libs.common.blobs_file import FileBlobStore  # noqa: PLC0415 - only what is used

        return FileBlobStore(place.root, ids, crash=crash)
    if not access_key or not secret_key:
        raise _mistake(["s3:// needs an access key and a secret key, in settings of their own"])
    from libs.common.blobs_s3 import S3BlobStore  # noqa: PLC0415 - heavy: only where used

    return S3BlobStore(
        endpoint=place.endpoint,
        bucket=place.bucket,
        region=place.region,
        public_endpoint=place.public_endpoint,
        access_key=access_key,
        secret_key=secret_key,
        create_bucket=create_bucket,
        crash=crash,
        clock=clock,
        ids=ids,
    )


def open_blob_urls(url: str, *, clock: Clock, ids: Ids) -> BlobUrls:
    """Reads and writes the blob_urls of the store of a BLOB_URL; needs no keys.

    Raises:
        ValueError: one text with every mistake.
    """
    from libs.common.blobs_urls import FileBlobUrls, S3BlobUrls  # noqa: PLC0415 - only what is used

    place = parse_blob_url(url)
    if isinstance(place, FileLocation):
        return FileBlobUrls(place.root, ids)
    return S3BlobUrls(
        endpoint=place.endpoint, bucket=place.bucket, region=place.region, clock=clock, ids=ids
    )


def _file_location(url: str) -> FileLocation:
    parts = urlsplit(url)
    mistakes = []
    if parts.netloc or not parts.path.startswith("/") or parts.path.strip("/") == "":
        mistakes.append("file:// needs three slashes and an absolute folder")
    if parts.query or parts.fragment:
        mistakes.append("file:// takes no options")
    if "\0" in unquote(parts.path):
        mistakes.append("the folder holds a NUL")
    if mistakes:
        raise _mistake(mistakes)
    return FileLocation(Path(unquote(parts.path)))


def _s3_location(bucket: str, rest: str, options: list[tuple[str, str]]) -> S3Location:
    named = dict(options)
    mistakes = []
    if "@" in bucket:
        mistakes.append("keys do not belong into the URL")
    elif not _BUCKET.fullmatch(bucket):
        mistakes.append("s3:// needs a bucket name of 3 to 63 of a-z 0-9 . -")
    if rest.strip("/"):
        mistakes.append("s3:// takes no path")
    if unknown := set(named) - _OPTIONS:
        mistakes.append(
            f"{len(unknown)} unknown option(s); known are {', '.join(sorted(_OPTIONS))}"
        )
    if len(named) != len(options):
        mistakes.append("an option is there twice")
    if not _is_endpoint(named.get("endpoint", "")):
        mistakes.append("endpoint must be http(s)://host[:port] and nothing more")
    public = named.get("public_endpoint", "")
    if public and not _is_endpoint(public):
        mistakes.append("public_endpoint must be http(s)://host[:port] and nothing more")
    region = named.get("region", "us-east-1")
    if not _REGION.fullmatch(region):
        mistakes.append("region must be of a-z 0-9 -")
    if mistakes:
        raise _mistake(mistakes)
    return S3Location(bucket, named["endpoint"].rstrip("/"), region, public.rstrip("/"))


def _is_endpoint(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in {"http", "https"}
        and bool(parts.hostname)
        and "@" not in parts.netloc
        and port != 0
        and not (parts.path.strip("/") or parts.query or parts.fragment)
    )


def _mistake(mistakes: list[str]) -> ValueError:
    return ValueError(f"BLOB_URL: {'; '.join(mistakes)}. It looks like {FORMS}")
