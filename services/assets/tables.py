"""The tables of the `assets` database, with named constraints."""

from __future__ import annotations

import sqlalchemy as sa

from libs.common.db import Instant, Json, id_column
from libs.common.homes import home_table
from libs.common.request_keys import request_keys_table

metadata = sa.MetaData()

_LIVE = sa.text("deleted_at IS NULL")
_LIVE_SLOT = sa.text("kind = 'GENERATED' AND deleted_at IS NULL")
_DELETED = sa.text("deleted_at IS NOT NULL")
_LIVE_GENERATED = sa.text("kind = 'GENERATED' AND deleted_at IS NULL AND recorded_at IS NOT NULL")
_LIVE_UPLOAD = sa.text("kind = 'UPLOAD' AND deleted_at IS NULL")
_NAMED = sa.text("kind = 'NAMED'")
_DEFAULT = sa.text("kind = 'DEFAULT'")
_OF_BATCH = sa.text("batch_id <> 0")
_HAS_ENDED = sa.text("ended_at IS NOT NULL")
_HAS_IMAGE = sa.text("image_file_id IS NOT NULL")
_ZERO = sa.text("0")

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
    # The shop's variant and the batch it was made for.
    sa.Column("variant", sa.Text, nullable=False, server_default=""),
    sa.Column("batch_id", sa.BigInteger, nullable=False, server_default=_ZERO),
    # Provenance: [[role, file id, sha256], …] as the generator saw them, and what it took.
    sa.Column("inputs", Json),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False, server_default=_ZERO),
    sa.Column("output_tokens", sa.BigInteger, nullable=False, server_default=_ZERO),
    sa.Column("total_tokens", sa.BigInteger, nullable=False, server_default=_ZERO),
    sa.Column("cost_micros", sa.BigInteger, nullable=False, server_default=_ZERO),
    # APPROVED or REJECTED, as a person said; NULL: nobody has.
    sa.Column("review_state", sa.Text),
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
    sa.Index(
        "files_by_variant",
        "team",
        "variant",
        "id",
        postgresql_where=_LIVE_GENERATED,
        sqlite_where=_LIVE_GENERATED,
    ),
    sa.Index(
        "files_uploads", "team", "id", postgresql_where=_LIVE_UPLOAD, sqlite_where=_LIVE_UPLOAD
    ),
    # For retention.
    sa.Index("files_by_age", "kind", "created_at", postgresql_where=_LIVE, sqlite_where=_LIVE),
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
    # The newest review, as files have it, and when it was made, in microseconds since 1970.
    sa.Column("review_state", sa.Text),
    sa.Column("reviewed_us", sa.BigInteger, nullable=False, server_default=_ZERO),
    sa.Index("job_endings_ended", "ended_at", postgresql_where=_HAS_ENDED, sqlite_where=_HAS_ENDED),
)

folders = sa.Table(
    "folders",
    metadata,
    id_column(),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    # Of a batch: its shared folder has variant_index 0. Zeros for the others.
    sa.Column("batch_id", sa.BigInteger, nullable=False),
    sa.Column("variant_index", sa.Integer, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.CheckConstraint(
        "kind IN ('NAMED','DEFAULT','BATCH','BATCH_VARIANT')", name="folders_kind_known"
    ),
    sa.Index("folders_by_team", "team", "id"),
    sa.Index(
        "folders_name", "team", "name", unique=True, postgresql_where=_NAMED, sqlite_where=_NAMED
    ),
    sa.Index(
        "folders_default", "team", unique=True, postgresql_where=_DEFAULT, sqlite_where=_DEFAULT
    ),
    sa.Index(
        "folders_batch",
        "team",
        "batch_id",
        "variant_index",
        unique=True,
        postgresql_where=_OF_BATCH,
        sqlite_where=_OF_BATCH,
    ),
    sa.Index(
        "folders_batch_created",
        "created_at",
        postgresql_where=_OF_BATCH,
        sqlite_where=_OF_BATCH,
    ),
    sqlite_autoincrement=True,
)

folder_files = sa.Table(
    "folder_files",
    metadata,
    sa.Column(
        "folder_id",
        sa.BigInteger,
        sa.ForeignKey("folders.id", ondelete="CASCADE", name="folder_files_folder"),
        primary_key=True,
    ),
    sa.Column(
        "file_id",
        sa.BigInteger,
        sa.ForeignKey("files.id", ondelete="CASCADE", name="folder_files_file"),
        primary_key=True,
    ),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("added_at", Instant, nullable=False),
    sa.Index("folder_files_by_file", "file_id"),
)

moodboards = sa.Table(
    "moodboards",
    metadata,
    id_column(),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("style_appendix", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Index("moodboards_by_team", "team", "id"),
    sqlite_autoincrement=True,
)

moodboard_files = sa.Table(
    "moodboard_files",
    metadata,
    sa.Column(
        "moodboard_id",
        sa.BigInteger,
        sa.ForeignKey("moodboards.id", ondelete="CASCADE", name="moodboard_files_moodboard"),
        primary_key=True,
    ),
    sa.Column("role", sa.Text, primary_key=True),  # positive, negative, background, model
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column(
        "file_id",
        sa.BigInteger,
        sa.ForeignKey("files.id", name="moodboard_files_file"),
        nullable=False,
    ),
    sa.Index("moodboard_files_by_file", "file_id"),
)

variants = sa.Table(
    "variants",
    metadata,
    sa.Column("team", sa.Text, primary_key=True),
    sa.Column("variant_id", sa.Text, primary_key=True),
    sa.Column("product", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    # No foreign key: the image may be deleted, and then there is none.
    sa.Column("image_file_id", sa.BigInteger),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Index("variants_by_product", "team", "product", "variant_id"),
    sa.Index(
        "variants_image", "image_file_id", postgresql_where=_HAS_IMAGE, sqlite_where=_HAS_IMAGE
    ),
)

# One row per team that ever stored: stored_bytes changes with the rows of files, in one
# transaction, under this row's lock.
storage = sa.Table(
    "storage",
    metadata,
    sa.Column("team", sa.Text, primary_key=True),
    sa.Column("stored_bytes", sa.BigInteger, nullable=False),
    # NULL: the service's default.
    sa.Column("max_stored_bytes", sa.BigInteger),
    sa.Column("calls_per_minute", sa.Integer),
    sa.CheckConstraint("stored_bytes >= 0", name="storage_never_negative"),
)

# Bytes set aside for uploads under way; they run out with their uploader.
reservations = sa.Table(
    "reservations",
    metadata,
    sa.Column("token", sa.Text, primary_key=True),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Index("reservations_by_team", "team"),
    sa.Index("reservations_expiring", "expires_at"),
)

# Uploads whose bytes are put by URL; completed ones stay for a while, for repeated calls.
pending_uploads = sa.Table(
    "pending_uploads",
    metadata,
    id_column(),
    sa.Column("team", sa.Text, nullable=False),
    # Of the raw blob's key and of the reservation.
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("content_type", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    # No foreign key: the file may be deleted, and its row removed, before this one.
    sa.Column("file_id", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Index("pending_uploads_created", "created_at"),
    sqlite_autoincrement=True,
)

home = home_table(metadata)
