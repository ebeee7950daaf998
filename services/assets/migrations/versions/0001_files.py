"""Files, the pins on them, keys of uploads and the ends of jobs."""

import sqlalchemy as sa
from alembic import op

from libs.common.db import Instant, id_column
from libs.common.rls import grant, wall

revision = "0001"
down_revision = None

_LIVE = sa.text("deleted_at IS NULL")
_LIVE_SLOT = sa.text("kind = 'GENERATED' AND deleted_at IS NULL")
_DELETED = sa.text("deleted_at IS NOT NULL")
_EXPIRING = sa.text("expires_at IS NOT NULL")


def upgrade() -> None:
    _files()
    _pins()
    _the_rest()
    for table in ("files", "pins", "idempotency_keys", "job_endings"):
        wall(table, "assets")
    grant("files", "assets", "SELECT, INSERT, UPDATE")
    grant("pins", "assets", "SELECT, INSERT, UPDATE, DELETE")
    grant("idempotency_keys", "assets", "SELECT, INSERT")
    grant("job_endings", "assets", "SELECT, INSERT, UPDATE")


def _files() -> None:
    op.create_table(
        "files",
        id_column(),
        sa.Column("team", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("blob_key", sa.Text, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("crc32", sa.BigInteger, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("job_id", sa.BigInteger, nullable=False),
        sa.Column("image_index", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("preview", sa.Boolean, nullable=False),
        sa.Column("recorded_at", Instant),
        sa.Column("source_task_id", sa.Text, nullable=False),
        sa.Column("deleted_at", Instant),
        sa.Column("remove_at", Instant),
        sa.CheckConstraint("kind IN ('UPLOAD','GENERATED','ARCHIVE')", name="files_kind_known"),
        sa.CheckConstraint(
            "(deleted_at IS NULL) = (remove_at IS NULL)", name="files_deleted_are_removed"
        ),
        sa.UniqueConstraint("blob_key", name="files_blob_key"),
        sqlite_autoincrement=True,
    )
    for name, columns, where, unique in (
        ("files_by_team", ["team", "id"], _LIVE, False),
        ("files_by_job", ["team", "job_id", "id"], _LIVE, False),
        ("files_slot", ["team", "job_id", "image_index"], _LIVE_SLOT, True),
        ("files_to_remove", ["remove_at"], _DELETED, False),
    ):
        op.create_index(
            name, "files", columns, unique=unique, postgresql_where=where, sqlite_where=where
        )


def _pins() -> None:
    op.create_table(
        "pins",
        sa.Column("team", sa.Text, primary_key=True),
        sa.Column("pin_token", sa.Text, primary_key=True),
        sa.Column(
            "file_id",
            sa.BigInteger,
            sa.ForeignKey("files.id", ondelete="CASCADE", name="pins_file"),
            primary_key=True,
        ),
        sa.Column("expires_at", Instant),
    )
    op.create_index("pins_by_file", "pins", ["file_id"])
    op.create_index(
        "pins_expiring",
        "pins",
        ["expires_at"],
        postgresql_where=_EXPIRING,
        sqlite_where=_EXPIRING,
    )


def _the_rest() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("team", sa.Text, primary_key=True),
        sa.Column("method", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("body_hash", sa.Text, nullable=False),
        sa.Column("resource_id", sa.BigInteger, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
    )
    op.create_table(
        "job_endings",
        sa.Column("team", sa.Text, primary_key=True),
        sa.Column("job_id", sa.BigInteger, primary_key=True),
        sa.Column("ended_at", Instant),
    )
