"""The tables of the `assets` database, with named constraints."""

from __future__ import annotations

import sqlalchemy as sa

from libs.common.db import Instant, id_column
from libs.common.request_keys import request_keys_table

metadata = sa.MetaData()

_LIVE = sa.text("deleted_at IS NULL")
_LIVE_SLOT = sa.text("kind = 'GENERATED' AND deleted_at IS NULL")
_DELETED = sa.text("deleted_at IS NOT NULL")

files = sa.Table(
    "files",
    metadata,
    id_column(),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    # The bytes; written once.
    sa.Column("blob_key", sa.Text, nullable=False),
    sa.Column("content_type", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("crc32", sa.BigInteger, nullable=False),  # unsigned, so no INTEGER
    sa.Column("created_at", Instant, nullable=False),
    # Whose image it is; zeros and empty for uploads.
    sa.Column("job_id", sa.BigInteger, nullable=False),
    sa.Column("image_index", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("preview", sa.Boolean, nullable=False),
    # From job.ended; a generated file without it is hidden from lists.
    sa.Column("recorded_at", Instant),
    sa.Column("source_task_id", sa.Text, nullable=False),
    # The tombstone, and when the blob may go.
    sa.Column("deleted_at", Instant),
    sa.Column("remove_at", Instant),
    sa.CheckConstraint("kind IN ('UPLOAD','GENERATED','ARCHIVE')", name="files_kind_known"),
    sa.CheckConstraint(
        "(deleted_at IS NULL) = (remove_at IS NULL)", name="files_deleted_are_removed"
    ),
    sa.UniqueConstraint("blob_key", name="files_blob_key"),
    sa.Index("files_by_team", "team", "id", postgresql_where=_LIVE, sqlite_where=_LIVE),
    sa.Index("files_by_job", "team", "job_id", "id", postgresql_where=_LIVE, sqlite_where=_LIVE),
    # First write wins.
    sa.Index(
        "files_slot",
        "team",
        "job_id",
        "image_index",
        unique=True,
        postgresql_where=_LIVE_SLOT,
        sqlite_where=_LIVE_SLOT,
    ),
    sa.Index("files_to_remove", "remove_at", postgresql_where=_DELETED, sqlite_where=_DELETED),
    sqlite_autoincrement=True,
)

pins = sa.Table(
    "pins",
    metadata,
    sa.Column("team", sa.Text, primary_key=True),
    sa.Column("pin_token", sa.Text, primary_key=True),
    sa.Column(
        "file_id",
        sa.BigInteger,
        sa.ForeignKey("files.id", ondelete="CASCADE", name="pins_file"),
        primary_key=True,
    ),
    # NULL: until the job's end.
    sa.Column("expires_at", Instant),
    sa.Index("pins_by_file", "file_id"),
    sa.Index(
        "pins_expiring",
        "expires_at",
        postgresql_where=sa.text("expires_at IS NOT NULL"),
        sqlite_where=sa.text("expires_at IS NOT NULL"),
    ),
)

idempotency_keys = request_keys_table(metadata)

# A row from the first image of a job on: storing images and taking in the end lock it.
job_endings = sa.Table(
    "job_endings",
    metadata,
    sa.Column("team", sa.Text, primary_key=True),
    sa.Column("job_id", sa.BigInteger, primary_key=True),
    # NULL: not ended, as far as assets has heard.
    sa.Column("ended_at", Instant),
)
