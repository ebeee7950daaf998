"""What the doors of assets are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libs.common.paging import PageTokens
from services.assets.receiving import Pace
from services.assets.usecases.completing import CompleteUpload
from services.assets.usecases.deps import Deps
from services.assets.usecases.uploading import UploadFile


@dataclass(frozen=True, slots=True)
class Means:
    """The use cases of the team door, and what they share."""

    deps: Deps
    upload: UploadFile
    complete: CompleteUpload
    tokens: PageTokens
    pace: Pace

    def next_page(self, ids: Sequence[int], limit: int, *scope: object) -> str:
        """The token of the page after this one; empty when `limit` rows and one more were not."""
        return self.tokens.seal(ids[limit - 1], *scope) if len(ids) > limit else ""


class Doors:
    """Some RPCs of a service: the servicer of the whole is made of such parts, one per noun."""

    def __init__(self, means: Means) -> None:
        self._means = means
