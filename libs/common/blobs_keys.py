"""What a blob key may look like. Keys become paths and URLs, so nothing needs escaping."""

from __future__ import annotations

import re

from libs.common.errors import InvalidArgumentError

MAX_KEY_CHARS = 512
MAX_SEGMENT_CHARS = 200  # file systems stop at 255 bytes

# A segment never starts with a dot: no `.`, no `..`, and `.tmp` stays ours.
_KEY = re.compile(rf"[a-z0-9_-][a-z0-9_.-]{{0,{MAX_SEGMENT_CHARS - 1}}}", re.ASCII)
_PREFIX = re.compile(r"[a-z0-9/_.-]*", re.ASCII)


def is_key(text: str) -> bool:
    """Whether text is a key that the blob stores accept."""
    return 0 < len(text) <= MAX_KEY_CHARS and all(
        _KEY.fullmatch(segment) for segment in text.split("/")
    )


def check_key(key: str) -> str:
    """The key itself; InvalidArgumentError `BAD_BLOB_KEY` when it is not one."""
    if not is_key(key):
        raise bad_key()
    return key


def check_prefix(prefix: str) -> str:
    """The prefix of a listing; it may end anywhere in a key, and may be empty."""
    folders = prefix.split("/")[:-1]
    if not _PREFIX.fullmatch(prefix) or (folders and not is_key("/".join(folders))):
        raise bad_key()
    return prefix


def bad_key() -> InvalidArgumentError:
    """The one error for a key that cannot be."""
    return InvalidArgumentError("Not a blob key.", reason="BAD_BLOB_KEY")


def bad_url() -> InvalidArgumentError:
    """The one error for a URL that is not of the configured store; it repeats no byte of it."""
    return InvalidArgumentError(
        "The URL is not a blob_url of the configured store.", reason="BAD_BLOB_URL"
    )
