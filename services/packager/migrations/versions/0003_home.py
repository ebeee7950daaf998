"""Where the database lives."""

import sqlalchemy as sa
from alembic import op

from libs.common.rls import grant

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "home",
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.CheckConstraint("id = 1", name="home_is_one"),
    )
    grant("home", "packager", "SELECT, INSERT", "SELECT, INSERT")
