"""What still holds after any calls, also of services that lie, read from the databases.

A worker is trusted to have stored what it records, so which bytes are behind an image is not
looked at here; slots, events, places, credits, keys and stored bytes are ours alone to keep.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from services.assets import tables as assets
from services.enqueue import tables as enqueue
from tests.fuzz.house import House
from tests.simulation.promises import broken_at_rest
from tests.support.databases import DatabaseUrls

TABLES = (
    *("teams", "jobs", "images", "events", "idempotency_keys", "outbox", "accounts"),
    *("credit_entries", "batches"),
)
Row = dict[str, Any]


def broken_promises(house: House) -> list[str]:
    """One line per promise that does not hold, now that nothing runs any more."""
    found = _rows(house.urls["enqueue"], enqueue.metadata, TABLES)
    stored = _rows(house.urls["assets"], assets.metadata, ("files", "storage", "reservations"))
    return [*broken_at_rest(found), *_stored_bytes(stored)]


def _rows(
    urls: DatabaseUrls, metadata: sa.MetaData, names: tuple[str, ...]
) -> dict[str, list[Row]]:
    url = (urls.duty or urls.app).replace("+aiosqlite", "")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    found = {}
    with engine.connect() as connection:
        for name in names:
            rows = connection.execute(sa.select(metadata.tables[name]))
            found[name] = [dict(row) for row in rows.mappings()]
    engine.dispose()
    return found


def _stored_bytes(found: dict[str, list[Row]]) -> Iterator[str]:
    real: dict[str, int] = defaultdict(int)
    for file in found["files"]:
        if file["deleted_at"] is None:
            real[file["team"]] += file["size_bytes"]
    said = {row["team"]: row["stored_bytes"] for row in found["storage"] if row["stored_bytes"]}
    if said != {team: size for team, size in real.items() if size}:
        yield f"stored bytes are said to be {said}, and are {dict(real)}"
