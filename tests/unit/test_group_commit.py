"""Group commit: what waits goes together, as far as it fits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from libs.common.errors import ContentshopError
from libs.common.group_commit import GroupCommit


async def test_a_group_holds_so_many_items_and_so_much_weight() -> None:
    groups: list[list[int]] = []

    async def run(group: Sequence[int]) -> Sequence[int | ContentshopError]:
        groups.append(list(group))
        return group

    commits = GroupCommit(run, max_group=3, max_weight=10, weight=lambda item: item)
    items = [1, 6, 4, 5, 25, 2, 2, 2, 2]
    assert await asyncio.gather(*map(commits.submit, items)) == items
    await commits.stop()
    # A single item may weigh more than fits.
    assert groups == [[1, 6], [4, 5], [25], [2, 2, 2], [2]]
