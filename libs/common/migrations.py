"""One alembic history per service, run by `python -m services.<name> migrate`."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command, context
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool


def _sync_url(url: str) -> str:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        parsed = parsed.set(drivername="sqlite")
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    return parsed.render_as_string(hide_password=False)


def migrate(url: str, migrations: Path) -> None:
    """Brings the database to the newest revision; safe to run again, and by two at once.

    Args:
        url: the owner's URL.
        migrations: the service's migrations folder.
    """
    engine = sa.create_engine(_sync_url(url), poolclass=NullPool)
    config = Config()
    config.set_main_option("script_location", str(migrations))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # A migration that cannot get its locks gives up rather than queue up all traffic.
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7206517)"))
            connection.execute(sa.text("SET LOCAL lock_timeout = '2s'"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


def run_env(metadata: sa.MetaData) -> None:
    """What every migrations/env.py calls."""
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()


def drift(url: str, metadata: sa.MetaData) -> list[object]:
    """What tables.py says and the migrated database does not, for the test that says: nothing."""
    engine = sa.create_engine(_sync_url(url), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection), metadata))
    finally:
        engine.dispose()
