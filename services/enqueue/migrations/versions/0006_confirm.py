"""When assets is asked whether it has heard of a job."""

import sqlalchemy as sa
from alembic import op

from libs.common.db import Instant

revision = "0006"
down_revision = "0005"

_DUE = sa.text("confirm_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("confirm_at", Instant))
    op.create_index(
        "jobs_to_confirm",
        "jobs",
        ["confirm_at"],
        postgresql_where=_DUE,
        sqlite_where=_DUE,
    )
