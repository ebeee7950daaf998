"""Row-level security as DDL, for migrations: the second wall between teams on PostgreSQL.

Roles are made outside (deploy/postgres/roles.sql): `<service>_owner` owns and migrates,
`<service>_app` serves teams, `<service>_duty` does background work. An absent setting is the empty
string on a pooled connection, hence the nullif; no team matches NULL.
"""

from __future__ import annotations

from alembic import op

from libs.common.db import TEAMS_SETTING

_TEAM_IS_SET = (
    f"team = ANY (string_to_array(nullif(current_setting('{TEAMS_SETTING}', true), ''), ','))"
)


def on_postgres() -> bool:
    """Whether the migration runs on PostgreSQL."""
    return op.get_bind().dialect.name == "postgresql"


def wall(table: str, service: str) -> None:
    """Lets the application role see rows of its teams alone, and the duty role all."""
    if not on_postgres():
        return
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY {table}_team ON {table} TO {service}_app "
        f"USING ({_TEAM_IS_SET}) WITH CHECK ({_TEAM_IS_SET})"
    )
    op.execute(f"CREATE POLICY {table}_duty ON {table} TO {service}_duty USING (true)")


def grant(table: str, service: str, app: str, duty: str = "") -> None:
    """Grants privileges (`SELECT, INSERT`) on a table to the two roles."""
    if not on_postgres():
        return
    if app:
        op.execute(f"GRANT {app} ON {table} TO {service}_app")
    op.execute(f"GRANT {duty or 'SELECT, INSERT, UPDATE, DELETE'} ON {table} TO {service}_duty")
