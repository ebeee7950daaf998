"""Names people gave their files and folders: kept for display, never used as a path."""

from __future__ import annotations

import re
import unicodedata

from libs.common.errors import FieldViolation, InvalidArgumentError

MAX_CHARACTERS = 100

_FALLBACK = "file"
# Past this only the two ends of a name can matter; the middle is not worth normalising.
_MAX_RAW_CHARACTERS = 1000
_MAX_EXTENSION_CHARACTERS = 16
_SEPARATORS = re.compile(r"[/\\]")
_DRIVE = re.compile(r"[A-Za-z]:")
_NOT_IN_NAMES = re.compile(r'[<>:"|?*/\\]')
_SPACES = re.compile(r"\s+")
# Reserved by Windows whatever follows the first dot.
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\.|$)", re.IGNORECASE
)
# Control, format (bidi among them), surrogate, unassigned; line and paragraph separators.
_INVISIBLE = {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}
# Format characters that Persian, Indic scripts and emoji need.
_JOINERS = {"\u200c", "\u200d"}


def clean_filename(raw: str, field: str) -> str:
    """A name that is safe to show, to put in a header and in a zip: 1..100 characters, NFC.

    Paths lose their folders; control and bidi characters, leading dots and dashes, and trailing
    dots go; characters no file system shares become `_`, as does the start of Windows' device
    names; a long name keeps its extension; nothing left is `file`. Cleaning twice changes
    nothing.

    Args:
        raw: as it was given.
        field: the request's, for the refusal.

    Raises:
        InvalidArgumentError: BAD_FILENAME for NUL, CR or LF, which no honest name holds.
    """
    if any(character in raw for character in "\0\r\n"):
        raise InvalidArgumentError(
            "a file name cannot hold a line break or NUL",
            reason="BAD_FILENAME",
            violations=[FieldViolation(field, "cannot hold a line break or NUL")],
        )
    name = _SEPARATORS.split(raw)[-1]
    if len(name) > _MAX_RAW_CHARACTERS:
        name = name[: _MAX_RAW_CHARACTERS // 2] + name[-_MAX_RAW_CHARACTERS // 2 :]
    name = _visible(name)
    return _tidy(_DRIVE.sub("", name, count=1) if _DRIVE.match(name) else name) or _FALLBACK


def clean_folder_name(raw: str) -> str:
    """A folder's name, cleaned like a file's, but what looks like a path stays whole.

    Line breaks become spaces and separators `_`. Empty when nothing is left.
    """
    return _tidy(_visible(_SPACES.sub(" ", raw[:_MAX_RAW_CHARACTERS])))


def _visible(name: str) -> str:
    return unicodedata.normalize("NFC", "".join(filter(_is_visible, name)))


def _tidy(name: str) -> str:
    name = _trim(_SPACES.sub(" ", _NOT_IN_NAMES.sub("_", name)))
    if _DEVICE.match(name):
        name = "_" + name
    return _shorten(name)


def _is_visible(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _INVISIBLE


def _trim(name: str) -> str:
    return name.lstrip(" .-~\u200c\u200d").rstrip(" .\u200c\u200d")


def _shorten(name: str) -> str:
    if len(name) <= MAX_CHARACTERS:
        return name
    stem, dot, extension = name.rpartition(".")
    if not dot or not stem or len(extension) > _MAX_EXTENSION_CHARACTERS:
        return _trim(name[:MAX_CHARACTERS])
    room = MAX_CHARACTERS - len(extension) - 1
    return _trim(stem[:room]) + "." + extension
