"""What a database needs once it was brought back from a copy: ids that nobody has seen."""

from __future__ import annotations

import sqlalchemy as sa
import structlog
from sqlalchemy.pool import NullPool

from libs.common.clock import Clock
from libs.common.homes import PLACE
from libs.common.migrations import sync_url

log = structlog.get_logger()

# More than any service hands out between two restores in the same second.
_AT_LEAST = 1_000_000


def settle(url: str, metadata: sa.MetaData, clock: Clock) -> int:
    """Lets a restored database live where it is, with ids that were never used; the first of them.

    Ids go on from the clock, in microseconds since 1970. So they are beyond all that were handed
    out after the copy was made, whoever remembers those and however often the same copy is
    brought back, unless more than a million were used in each second. They are far below 2^53.

    Args:
        url: the owner's URL.
        metadata: the service's tables.
        clock: gives the time.
    """
    first = int(clock.now().timestamp() * 1_000_000)
    engine = sa.create_engine(sync_url(url), poolclass=NullPool)
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            if "id" in table.c and table.c.id.identity is not None:
                first = max(first, _advance(connection, table.name, first))
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("DELETE FROM home"))
            connection.execute(sa.text(f"INSERT INTO home (id, place) VALUES (1, {PLACE})"))  # noqa: S608 - ours
    engine.dispose()
    log.info("restore.settled", first_id=first)
    return first


def _advance(connection: sa.Connection, table: str, first: int) -> int:
    """The table's next id is `first`, or later where it has come further; which it is."""
    if connection.dialect.name == "postgresql":
        sequence = sa.text("SELECT pg_get_serial_sequence(:table, 'id')")
        name: str = connection.execute(sequence, {"table": table}).scalar_one()
        last: int = connection.execute(sa.text(f"SELECT last_value FROM {name}")).scalar_one()  # noqa: S608 - ours
        after = max(first, last + _AT_LEAST)
        connection.execute(sa.text("SELECT setval(:name, :id, false)"), {"name": name, "id": after})
        return after
    # SQLite has a row for a table that was ever written to.
    row = {"name": table}
    select = sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name")
    last = connection.execute(select, row).scalar_one_or_none() or 0
    after = max(first, last + _AT_LEAST)
    connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :name"), row)
    insert = sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :seq)")
    connection.execute(insert, row | {"seq": after - 1})
    return after
