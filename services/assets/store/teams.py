"""Teams: assets keeps no row of them, and still must count what one has without a race."""

from __future__ import annotations

import sqlalchemy as sa

from libs.common.db import Tx

_SPACE = 0x61737374  # keeps our keys apart from other advisory locks of the database


async def lock(tx: Tx, team: str) -> None:
    """Lets one transaction at a time create for the team: what it counts next stays true.

    Two teams may share a key, and then wait for each other; nothing else. On SQLite there is one
    writer anyway.
    """
    if tx.on_postgres:
        key = sa.func.hashtext(sa.literal(team))
        await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_SPACE, key)))
