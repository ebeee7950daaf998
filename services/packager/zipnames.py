"""Names of the folders in a zip: a shop's words made safe, and unlike each other on any disk."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from services.packager.domain import Section

MAX_FOLDER_CHARS = 80

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_DOTS = re.compile(r"\.{2,}")
# Windows keeps these for itself, also with something behind a dot.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)


def folder_names(sections: Sequence[Section], taken: Sequence[str] = ()) -> list[str]:
    """One name per section, in order: its variant's, or `variant-<n>` where that has no letters.

    Args:
        sections: of one batch.
        taken: names that stand beside the folders.
    """
    used = {name.lower() for name in taken}
    names = []
    for section in sections:
        plain = f"variant-{section.variant_index}"
        wanted = safe_name(section.variant) or plain
        # Two variants may differ by what is not safe, or by case alone.
        choices = [wanted, f"{wanted}-{section.variant_index}", plain]
        name = next((choice for choice in choices if choice.lower() not in used), "")
        number = 2
        while not name:
            name = f"{plain}-{number}"
            if name.lower() in used:
                name, number = "", number + 1
        used.add(name.lower())
        names.append(name)
    return names


def safe_name(text: str) -> str:
    """The text as a file name of plain letters, digits, `_`, `.` and `-`; may be empty."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    # What has no plain letter at all would be a heap of dashes, and one like the other.
    name = _DOTS.sub(".", _UNSAFE.sub("-", plain)).strip("-.")[:MAX_FOLDER_CHARS].rstrip("-.")
    if not any(char.isalnum() for char in name):
        return ""
    return f"{name}_" if _DEVICE.fullmatch(name) else name
