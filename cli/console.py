"""The console of people: what servers and files say moves no cursor and turns no line around.

A file may be called `photo<U+202E>gnp.exe`, which a terminal shows with its end turned around; an
escape code could paint over what stood there. Such characters are shown by their number instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# C0 but tab and newline, DEL and C1; the marks, embeddings, overrides and isolates of direction;
# separators of lines and paragraphs; what nobody sees.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u206f\ufeff]"
)


def clean(text: str) -> str:
    """The text with such characters by their numbers."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cleaned(part: RenderableType) -> RenderableType:
    """Texts cleaned before they are measured, so that tables stay straight."""
    if isinstance(part, str):
        return clean(part)
    if isinstance(part, Text) and _UNSEEN.search(part.plain):
        return _cleaned_text(part)
    return part


def _cleaned_text(part: Text) -> Text:
    whole, end = part.blank_copy(), 0
    for found in _UNSEEN.finditer(part.plain):  # the others keep their colours
        whole.append_text(part[end : found.start()]).append(clean(found[0]))
        end = found.end()
    return whole.append_text(part[end:])


class CleanConsole(Console):
    """Whatever is rendered, at any depth, comes out clean; its own codes are no text."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As rich does, but for the characters."""
        for segment in super().render(cleaned(renderable), options):
            if segment.control or not _UNSEEN.search(segment.text):
                yield segment
            else:
                yield Segment(clean(segment.text), segment.style)
