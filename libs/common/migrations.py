"""One alembic history per service, run by `python -m services.<name> migrate`.

Alembic is loaded where it is used: it is a sixth of the time in which a service is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool


def sync_url(url: str) -> str:
    """The URL for a driver without asyncio; SQLite's folder is made."""
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
    from alembic import command  # noqa: PLC0415 - see the module
    from alembic.config import Config  # noqa: PLC0415

    engine = sa.create_engine(sync_url(url), poolclass=NullPool)
    if engine.dialect.name == "sqlite":
        _all_or_nothing(engine)
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


def _all_or_nothing(engine: sa.Engine) -> None:
    """Makes sqlite3 begin where we begin: by itself it commits every CREATE TABLE on its own.

    So a migration that dies leaves nothing behind, and a second migrate waits for the first.
    """

    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout=30000")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))


def run_env(metadata: sa.MetaData) -> None:
    """What every migrations/env.py calls."""
    from alembic import context  # noqa: PLC0415 - see the module

    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()


def drift(url: str, metadata: sa.MetaData) -> list[str]:
    """What tables.py says and the migrated database does not, and the reverse; [] is right.

    The tables are made once more, from tables.py, in a place that is thrown away, and the database
    describes both in its own words. (Alembic's comparison sees no CHECK constraint and no WHERE of
    an index, and reports types that only differ by dialect.)
    """
    engine = sa.create_engine(sync_url(url), poolclass=NullPool)
    on_postgres = engine.dialect.name == "postgresql"
    scratch = engine if on_postgres else sa.create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            migrated = _described(connection, None)
        with scratch.connect() as connection:
            schema = "drift" if on_postgres else None
            if schema:
                connection.execute(sa.schema.CreateSchema(schema))
            metadata.create_all(connection.execution_options(schema_translate_map={None: schema}))
            wanted = _described(connection, schema)
            connection.rollback()
    finally:
        engine.dispose()
    missing = [f"missing: {line}" for line in sorted(wanted - migrated)]
    return missing + [f"not in tables.py: {line}" for line in sorted(migrated - wanted)]


def _described(connection: sa.Connection, schema: str | None) -> set[str]:
    """Every table, column, key, constraint and index of a schema, a line each."""
    found = sa.inspect(connection)
    lines: set[str] = set()
    for table in set(found.get_table_names(schema)) - {"alembic_version"}:
        lines.add(f"table {table}{_autoincrement(connection, table)}")
        for column in found.get_columns(table, schema):
            identity: Any = column.get("identity") or {}
            lines.add(
                f"column {table}.{column['name']} {column['type']} null={column['nullable']} "
                f"default={column['default']} identity={identity.get('always')}"
            )
        key = found.get_pk_constraint(table, schema)
        lines.add(f"primary key of {table}: {key['constrained_columns']}")
        for foreign in found.get_foreign_keys(table, schema):
            lines.add(
                f"foreign key {foreign['name']} of {table}: {foreign['constrained_columns']} to "
                f"{foreign['referred_table']}{foreign['referred_columns']} {foreign['options']}"
            )
        for unique in found.get_unique_constraints(table, schema):
            lines.add(f"unique {unique['name']} of {table}: {unique['column_names']}")
        for check in found.get_check_constraints(table, schema):
            lines.add(f"check {check['name']} of {table}: {check['sqltext']}")
        for index in found.get_indexes(table, schema):
            options = {name: str(value) for name, value in index["dialect_options"].items()}
            columns = index.get("expressions") or index["column_names"]
            unique_word = "unique index" if index["unique"] else "index"
            lines.add(f"{unique_word} {index['name']} of {table}: {columns} {options}")
    return lines


def _autoincrement(connection: sa.Connection, table: str) -> str:
    """Whether ids are never used twice, which SQLite tells in the table's text alone."""
    if connection.dialect.name != "sqlite":
        return ""
    query = sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :name")
    text = connection.execute(query, {"name": table}).scalar_one()
    return " autoincrement" if "AUTOINCREMENT" in text else ""
