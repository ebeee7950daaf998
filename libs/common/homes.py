"""Where a database lives: a restored one lives elsewhere, and is known for what it is.

Its rows are older than what others remember. Were it served as it is, ids that were handed out
after the copy would be handed out again: a new job would get an old job's images. So the first
connection writes down which database of which cluster this is, and every later one compares;
`python -m services.<name> after-restore` lets it live where it is now.

What was not copied but brought back whole (a snapshot of the disk, a replica that took over with
less than its primary had) looks the same as before: there the operator must think of it.
"""

from __future__ import annotations

from typing import Any

import psycopg
import sqlalchemy as sa
import structlog
from sqlalchemy import event

from libs.common.errors import UnavailableError

log = structlog.get_logger()

# Anybody may read both; no other cluster has the one, no other database of this cluster the other.
PLACE = (
    "(SELECT system_identifier FROM pg_control_system())::text || '.' || "
    "(SELECT oid FROM pg_database WHERE datname = current_database())::text"
)
_COMPARE = f"SELECT {PLACE}, (SELECT place FROM home)"  # noqa: S608 - both are ours
_MOVE_IN = f"INSERT INTO home (id, place) VALUES (1, {PLACE}) ON CONFLICT DO NOTHING"  # noqa: S608


def home_table(metadata: sa.MetaData) -> sa.Table:
    """One row, of PostgreSQL alone: where these tables live; none before their first use."""
    return sa.Table(
        "home",
        metadata,
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.CheckConstraint("id = 1", name="home_is_one"),
    )


def guard(engine: sa.Engine) -> None:
    """Lets no connection to a restored PostgreSQL database be used: UnavailableError."""

    def on_connect(connection: Any, _record: Any) -> None:
        try:
            _compare(connection)
        except psycopg.Error as error:
            connection.close()
            log.warning("db.fault", error=type(error).__name__, sqlstate=error.sqlstate)
            raise UnavailableError("the database is away", reason="DATABASE_UNAVAILABLE") from error
        except UnavailableError:
            connection.close()
            raise

    event.listen(engine, "connect", on_connect)


def _compare(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(_COMPARE)
    place, home = cursor.fetchone()
    if home is None:
        cursor.execute(_MOVE_IN)
    connection.commit()
    cursor.close()
    if home not in {None, place}:
        log.error("database.restored", home=home, place=place)
        raise UnavailableError("the database is away", reason="DATABASE_RESTORED")
