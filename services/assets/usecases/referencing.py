"""Files that a team names in what it keeps: each must be an image of its own that lists show."""

from __future__ import annotations

from collections.abc import Mapping

from libs.common.checks import Violations
from libs.common.db import Tx
from services.assets.store import files

BAD_REFERENCE = "BAD_IMAGE_REFERENCE"
NOT_AN_UPLOAD = "IMAGE_NOT_AN_UPLOAD"
NOT_FOUND = "IMAGE_NOT_FOUND"


async def hold_images(tx: Tx, team: str, named: Mapping[str, int]) -> None:
    """Keeps the named images from being deleted until the transaction ends.

    An image of a job that has not ended is not found: it may still go with its job.

    Args:
        tx: where.
        team: whose.
        named: file ids by the fields of the request that name them.

    Raises:
        InvalidArgumentError: BAD_IMAGE_REFERENCE, naming every bad one at its field.
    """
    found = await files.find_images(tx, team, set(named.values()), hold=True)
    violations = Violations()
    for field, file_id in named.items():
        if file_id < 1:
            violations.add(field, "is not an upload", NOT_AN_UPLOAD)
        elif file_id not in found or found[file_id].of_live_job:
            violations.add(field, "is not found", NOT_FOUND)
    violations.raise_if_any(BAD_REFERENCE)
