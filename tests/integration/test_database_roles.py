"""What the roles of deploy/postgres/roles.sql may do in each service's migrated database."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.databases import SERVICES, PostgresTemplates
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.real

_RIGHTS = """
SELECT DISTINCT privilege_type FROM pg_class, aclexplode(relacl)
WHERE relnamespace = 'public'::regnamespace AND grantee = %(role)s::regrole
"""
# Grants to nobody in particular count as well.
_MAY = """
SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication
    OR has_schema_privilege(%(role)s, 'public', 'CREATE')
    OR has_database_privilege(%(role)s, current_database(), 'CREATE')
    OR EXISTS (SELECT FROM pg_auth_members WHERE member = %(role)s::regrole)
    OR EXISTS (SELECT FROM pg_class WHERE relowner = %(role)s::regrole)
FROM pg_roles WHERE rolname = %(role)s
"""
_SEQUENCES = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND
CASE WHEN relkind = 'S' THEN has_sequence_privilege(%(role)s, oid, 'USAGE, SELECT, UPDATE') END
"""
_OWNERS = """
SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class
WHERE relnamespace = 'public'::regnamespace
"""
ROWS = {"SELECT", "INSERT", "UPDATE", "DELETE"}


@pytest.mark.parametrize("service", SERVICES)
def test_the_roles_in_use_read_and_write_rows_and_nothing_else(
    service: str, postgres_templates: PostgresTemplates, postgres_server: PostgresServer
) -> None:
    urls = postgres_templates.database(service)
    dsn = postgres_server.superuser_dsn(urls.app.rpartition("/")[2])
    with psycopg.connect(dsn) as connection:
        assert connection.execute(_OWNERS).fetchall() == [(f"{service}_owner",)]
        for kind in ("app", "duty"):
            role = {"role": f"{service}_{kind}"}
            rights = {right for (right,) in connection.execute(_RIGHTS, role)}
            assert {"SELECT", "INSERT"} <= rights <= ROWS
            assert connection.execute(_MAY, role).fetchall() == [(False,)]
            # Ids come from identities: nobody but the owner can turn them back.
            assert connection.execute(_SEQUENCES, role).fetchall() == []
        owner = connection.execute(
            "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb FROM pg_roles "
            "WHERE rolname = %s",
            [f"{service}_owner"],
        ).fetchall()
        assert owner == [(False,)]
