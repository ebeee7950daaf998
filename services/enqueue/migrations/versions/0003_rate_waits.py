"""Claims given back for the provider's rate; indexes for what operators ask of ended jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ENDED = sa.text("finished_at IS NOT NULL")
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
    # What metrics read stands in the index: a month of jobs is counted without their rows.
    op.drop_index("jobs_finished", "jobs")
    op.create_index(
        "jobs_finished",
        "jobs",
        ["finished_at"],
        postgresql_where=_ENDED,
        postgresql_include=["type", "state", "team", "created_at", "started_at"],
        sqlite_where=_ENDED,
    )
