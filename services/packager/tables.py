"""The tables of the `packager` database, with named constraints."""

from __future__ import annotations

import sqlalchemy as sa

from libs.common.db import Instant, Json, id_column
from libs.common.homes import home_table
from libs.common.request_keys import request_keys_table

metadata = sa.MetaData()

_PENDING = sa.text("state = 'PENDING'")
_TO_REPORT = sa.text("report_at IS NOT NULL")
_FINISHED = sa.text("finished_at IS NOT NULL")
_OF_ONE_THING = " + ".join(
    f"CASE WHEN {column} IS NULL THEN 0 ELSE 1 END"
    for column in ("job_id", "batch_id", "folder_id")
)

archives = sa.Table(
    "archives",
    metadata,
    id_column(),
    sa.Column("team", sa.Text, nullable=False),
    # What it is of: one of job_id, batch_id and folder_id.
    sa.Column("job_id", sa.BigInteger),
    # What it is; written once.
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("images", Json, nullable=False),  # [[index, file id], …] in the zip's order
    sa.Column("image_count", sa.Integer, nullable=False),
    # When the job or batch ended; of a folder when it was asked for.
    sa.Column("finish_time_ms", sa.BigInteger, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    # Where it stands.
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("file_id", sa.BigInteger),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("error_reason", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("finished_at", Instant),
    # The build.
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("try_at", Instant, nullable=False),
    sa.Column("lease_until", Instant),
    # A whole zip that is no file of assets yet, as far as we know.
    sa.Column("written_key", sa.Text),
    sa.Column("written_bytes", sa.BigInteger),
    sa.Column("written_sha256", sa.Text),
    sa.Column("written_crc32", sa.BigInteger),  # unsigned, so no INTEGER
    # The report to enqueue; report_at NULL: nothing to say.
    sa.Column("report_at", Instant),
    sa.Column("report_failures", sa.Integer, nullable=False),
    sa.Column("reported_at", Instant),
    sa.Column("batch_id", sa.BigInteger),
    sa.Column("folder_id", sa.BigInteger),
    sa.Column("source_name", sa.Text),  # the batch's or folder's, for people
    sa.Column("variants", Json),  # of a batch: [[variant index, variant, images], …] in order
    # Tells archives of one batch or folder apart.
    sa.Column("content_key", sa.Text),
    # When CreateArchive last answered with it, where that was after created_at.
    sa.Column("asked_at", Instant),
    # When it was last heard that its images may not be shown; NULL: they may.
    sa.Column("hidden_at", Instant),
    # By the attempt under way, now and then.
    sa.Column("images_written", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.CheckConstraint("state IN ('PENDING','READY','FAILED')", name="archives_state_known"),
    sa.CheckConstraint(
        "state <> 'READY' OR (file_id IS NOT NULL AND size_bytes IS NOT NULL)",
        name="archives_ready_has_file",
    ),
    sa.CheckConstraint(
        "state <> 'FAILED' OR error_reason IS NOT NULL", name="archives_failed_says_why"
    ),
    sa.CheckConstraint(f"{_OF_ONE_THING} = 1", name="archives_of_one_thing"),
    sa.UniqueConstraint("team", "job_id", name="archives_job"),
    sa.Index("archives_batch", "team", "batch_id", "content_key", unique=True),
    sa.Index("archives_folder", "team", "folder_id", "content_key", unique=True),
    sa.Index("archives_to_build", "try_at", postgresql_where=_PENDING, sqlite_where=_PENDING),
    sa.Index(
        "archives_to_report", "report_at", postgresql_where=_TO_REPORT, sqlite_where=_TO_REPORT
    ),
    sa.Index(
        "archives_finished", "finished_at", postgresql_where=_FINISHED, sqlite_where=_FINISHED
    ),
    sqlite_autoincrement=True,
)

idempotency_keys = request_keys_table(metadata)

home = home_table(metadata)
