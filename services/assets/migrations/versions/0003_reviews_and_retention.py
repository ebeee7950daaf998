"""The newest review of a job, and what retention looks for."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("job_endings", sa.Column("review_state", sa.Text))
    op.add_column(
        "job_endings",
        sa.Column("reviewed_us", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    )
    op.create_index("idempotency_keys_created", "idempotency_keys", ["created_at"])
    for name, table, column in (
        ("job_endings_ended", "job_endings", "ended_at"),
        ("variants_image", "variants", "image_file_id"),
    ):
        condition = sa.text(f"{column} IS NOT NULL")
        op.create_index(name, table, [column], postgresql_where=condition, sqlite_where=condition)
