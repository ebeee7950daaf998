"""Archives of batches and folders, hidden ones, progress, and what retention looks for."""

import sqlalchemy as sa
from alembic import op

from libs.common.db import Instant, Json, id_column

revision = "0002"
down_revision = "0001"

_PENDING = sa.text("state = 'PENDING'")
_TO_REPORT = sa.text("report_at IS NOT NULL")
_FINISHED = sa.text("finished_at IS NOT NULL")
_OF_ONE_THING = " + ".join(
    f"CASE WHEN {column} IS NULL THEN 0 ELSE 1 END"
    for column in ("job_id", "batch_id", "folder_id")
)


def upgrade() -> None:
    # SQLite cannot change a column: there the table is made anew, from what 0001 says it is.
    with op.batch_alter_table(
        "archives", copy_from=_before(), table_kwargs={"sqlite_autoincrement": True}
    ) as table:
        table.alter_column("job_id", existing_type=sa.BigInteger, nullable=True)
        for column in (
            sa.Column("batch_id", sa.BigInteger),
            sa.Column("folder_id", sa.BigInteger),
            sa.Column("source_name", sa.Text),
            sa.Column("variants", Json),
            sa.Column("content_key", sa.Text),
            sa.Column("asked_at", Instant),
            sa.Column("hidden_at", Instant),
            sa.Column("images_written", sa.Integer, nullable=False, server_default=sa.text("0")),
        ):
            table.add_column(column)
        table.create_check_constraint("archives_of_one_thing", f"{_OF_ONE_THING} = 1")
    for source in ("batch", "folder"):
        columns = ["team", f"{source}_id", "content_key"]
        op.create_index(f"archives_{source}", "archives", columns, unique=True)
    op.create_index(
        "archives_finished",
        "archives",
        ["finished_at"],
        postgresql_where=_FINISHED,
        sqlite_where=_FINISHED,
    )
    op.create_index("idempotency_keys_created", "idempotency_keys", ["created_at"])


def _before() -> sa.Table:
    """The table as 0001 made it."""
    return sa.Table(
        "archives",
        sa.MetaData(),
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
        sa.Index("archives_to_build", "try_at", postgresql_where=_PENDING, sqlite_where=_PENDING),
        sa.Index(
            "archives_to_report", "report_at", postgresql_where=_TO_REPORT, sqlite_where=_TO_REPORT
        ),
    )
