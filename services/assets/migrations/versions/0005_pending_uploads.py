"""Uploads whose bytes are put by URL."""

import sqlalchemy as sa
from alembic import op

from libs.common.db import Instant, id_column
from libs.common.rls import grant, wall

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "pending_uploads",
        id_column(),
        sa.Column("team", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("expires_at", Instant, nullable=False),
        sa.Column("file_id", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sqlite_autoincrement=True,
    )
    op.create_index("pending_uploads_created", "pending_uploads", ["created_at"])
    wall("pending_uploads", "assets")
    grant("pending_uploads", "assets", "SELECT, INSERT, UPDATE")
