"""The tables of the `enqueue` database, with named constraints."""

from __future__ import annotations

import sqlalchemy as sa

from libs.common.db import Instant, Json, id_column
from libs.common.outbox import outbox_table
from libs.common.request_keys import request_keys_table

metadata = sa.MetaData()

teams = sa.Table(
    "teams",
    metadata,
    sa.Column("team", sa.Text, primary_key=True),
    # NULL: the service's default. Live jobs at most.
    sa.Column("max_live_jobs", sa.Integer),
    sa.Column("created_at", Instant, nullable=False),
)

_LIVE = sa.text("admitted_at IS NOT NULL AND state IN ('QUEUED', 'RUNNING')")
_WAITING = sa.text("admitted_at IS NULL AND state = 'QUEUED'")

jobs = sa.Table(
    "jobs",
    metadata,
    id_column(),
    sa.Column("team", sa.Text, nullable=False),
    # What it is; written once.
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("lane", sa.Text, nullable=False),
    sa.Column("quality", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("schema_key", sa.Text, nullable=False),
    sa.Column("input", Json, nullable=False),
    sa.Column("aspect_ratio", sa.Text, nullable=False),
    sa.Column("number_of_variations", sa.Integer, nullable=False),
    sa.Column("inputs", Json, nullable=False),  # [[role, file id], …] in the prompt's order
    sa.Column("moodboard_snapshot", Json),
    sa.Column("prompt_original", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("product", sa.Text, nullable=False),
    sa.Column("variant", sa.Text, nullable=False),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("workspace_session_id", sa.Text, nullable=False),
    sa.Column("template_name", sa.Text, nullable=False),
    sa.Column("source_task_id", sa.Text, nullable=False),
    sa.Column("pin_token", sa.Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    # Where it stands.
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("last_sequence", sa.BigInteger, nullable=False),
    sa.Column("images_done", sa.Integer, nullable=False),
    sa.Column("images_failed", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column("lost_workers", sa.Integer, nullable=False),
    sa.Column("error_reason", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("started_at", Instant),
    sa.Column("finished_at", Instant),
    # Admission and doorbells.
    sa.Column("admitted_at", Instant),
    sa.Column("dispatch_no", sa.Integer, nullable=False),
    sa.Column("rings", sa.Integer, nullable=False),
    sa.Column("ring_at", Instant),
    sa.Column("not_before", Instant),
    # The claim.
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("claim_id", sa.Text),
    sa.Column("worker", sa.Text),
    sa.Column("lease_expires_at", Instant),
    # The zip.
    sa.Column("archive_state", sa.Text, nullable=False),
    sa.Column("archive_file_id", sa.BigInteger),
    sa.Column("archive_filename", sa.Text),
    sa.Column("archive_size_bytes", sa.BigInteger),
    sa.Column("archive_error_reason", sa.Text),
    sa.Column("archive_error_message", sa.Text),
    sa.Column("archive_rings", sa.Integer, nullable=False),
    sa.Column("archive_ring_at", Instant),
    sa.CheckConstraint(
        "state IN ('QUEUED','RUNNING','SUCCEEDED','FAILED','CANCELED')", name="jobs_state_known"
    ),
    sa.CheckConstraint(
        "images_done + images_failed <= number_of_variations", name="jobs_images_within"
    ),
    sa.CheckConstraint(
        "state <> 'RUNNING' OR (admitted_at IS NOT NULL AND lease_expires_at IS NOT NULL)",
        name="jobs_running_has_lease",
    ),
    sa.Index("jobs_by_team", "team", "id"),
    sa.Index("jobs_live", "team", postgresql_where=_LIVE, sqlite_where=_LIVE),
    sa.Index(
        "jobs_waiting", "team", "priority", "id", postgresql_where=_WAITING, sqlite_where=_WAITING
    ),
    sa.Index(
        "jobs_backing_off",
        "not_before",
        postgresql_where=sa.text("admitted_at IS NULL AND not_before IS NOT NULL"),
        sqlite_where=sa.text("admitted_at IS NULL AND not_before IS NOT NULL"),
    ),
    sa.Index(
        "jobs_leases",
        "lease_expires_at",
        postgresql_where=sa.text("state = 'RUNNING'"),
        sqlite_where=sa.text("state = 'RUNNING'"),
    ),
    sa.Index(
        "jobs_to_ring",
        "ring_at",
        postgresql_where=sa.text("ring_at IS NOT NULL"),
        sqlite_where=sa.text("ring_at IS NOT NULL"),
    ),
    sa.Index(
        "jobs_archives_to_ring",
        "archive_ring_at",
        postgresql_where=sa.text("archive_ring_at IS NOT NULL"),
        sqlite_where=sa.text("archive_ring_at IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

images = sa.Table(
    "images",
    metadata,
    sa.Column(
        "job_id",
        sa.BigInteger,
        sa.ForeignKey("jobs.id", ondelete="CASCADE", name="images_job"),
        primary_key=True,
    ),
    sa.Column("image_index", sa.Integer, primary_key=True),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("file_id", sa.BigInteger),
    sa.Column("content_type", sa.Text),
    sa.Column("width", sa.Integer),
    sa.Column("height", sa.Integer),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("sha256", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("prompt_tokens", sa.BigInteger),
    sa.Column("output_tokens", sa.BigInteger),
    sa.Column("total_tokens", sa.BigInteger),
    sa.Column("error_reason", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("done_at", Instant),
    sa.CheckConstraint(
        "state IN ('PENDING','DONE','FAILED','CANCELED')", name="images_state_known"
    ),
    sa.CheckConstraint("state <> 'DONE' OR file_id IS NOT NULL", name="images_done_has_file"),
    sa.UniqueConstraint("file_id", name="images_file"),  # a file stands in one slot alone
)

events = sa.Table(
    "events",
    metadata,
    sa.Column(
        "job_id",
        sa.BigInteger,
        sa.ForeignKey("jobs.id", ondelete="CASCADE", name="events_job"),
        primary_key=True,
    ),
    sa.Column("sequence", sa.BigInteger, primary_key=True),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("image_index", sa.Integer, nullable=False),
    sa.Column("file_id", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("error_reason", sa.Text),
    sa.Column("error_message", sa.Text),
)

idempotency_keys = request_keys_table(metadata)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("lanes", Json, nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("running", sa.Integer, nullable=False),
    sa.Column("seen_at", Instant, nullable=False),
)

outbox = outbox_table(metadata)
