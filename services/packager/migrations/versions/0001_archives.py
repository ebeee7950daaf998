"""Archives and idempotency keys."""

import sqlalchemy as sa
from alembic import op

from libs.common.db import Instant, Json, id_column
from libs.common.rls import grant, wall

revision = "0001"
down_revision = None

_PENDING = sa.text("state = 'PENDING'")
_TO_REPORT = sa.text("report_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "archives",
        id_column(),
        sa.Column("team", sa.Text, nullable=False),
        sa.Column("job_id", sa.BigInteger, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("images", Json, nullable=False),
        sa.Column("image_count", sa.Integer, nullable=False),
        sa.Column("finish_time_ms", sa.BigInteger, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("file_id", sa.BigInteger),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("error_reason", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("finished_at", Instant),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("try_at", Instant, nullable=False),
        sa.Column("lease_until", Instant),
        sa.Column("written_key", sa.Text),
        sa.Column("written_bytes", sa.BigInteger),
        sa.Column("written_sha256", sa.Text),
        sa.Column("written_crc32", sa.BigInteger),
        sa.Column("report_at", Instant),
        sa.Column("report_failures", sa.Integer, nullable=False),
        sa.Column("reported_at", Instant),
        sa.CheckConstraint("state IN ('PENDING','READY','FAILED')", name="archives_state_known"),
        sa.CheckConstraint(
            "state <> 'READY' OR (file_id IS NOT NULL AND size_bytes IS NOT NULL)",
            name="archives_ready_has_file",
        ),
        sa.CheckConstraint(
            "state <> 'FAILED' OR error_reason IS NOT NULL", name="archives_failed_says_why"
        ),
        sa.UniqueConstraint("team", "job_id", name="archives_job"),
        sqlite_autoincrement=True,
    )
    for name, column, where in (
        ("archives_to_build", "try_at", _PENDING),
        ("archives_to_report", "report_at", _TO_REPORT),
    ):
        op.create_index(name, "archives", [column], postgresql_where=where, sqlite_where=where)
    op.create_table(
        "idempotency_keys",
        sa.Column("team", sa.Text, primary_key=True),
        sa.Column("method", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("body_hash", sa.Text, nullable=False),
        sa.Column("resource_id", sa.BigInteger, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
    )
    wall("archives", "packager")
    wall("idempotency_keys", "packager")
    grant("archives", "packager", "SELECT, INSERT, UPDATE")
    grant("idempotency_keys", "packager", "SELECT, INSERT")
