"""Claims given back for the provider's rate, and how long recent jobs of a lane took."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_SUCCEEDED = sa.text("state = 'SUCCEEDED'")


def upgrade() -> None:
    op.add_column(
        "jobs", sa.Column("rate_waits", sa.Integer, nullable=False, server_default=sa.text("0"))
    )
    op.create_index(
        "jobs_succeeded",
        "jobs",
        ["lane", "finished_at"],
        postgresql_where=_SUCCEEDED,
        sqlite_where=_SUCCEEDED,
    )
