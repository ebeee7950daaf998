"""The tables of the `enqueue` database, with named constraints."""

from __future__ import annotations

import sqlalchemy as sa

from libs.common.db import Instant, Json, id_column
from libs.common.homes import home_table
from libs.common.outbox import outbox_table
from libs.common.request_keys import request_keys_table

metadata = sa.MetaData()

teams = sa.Table(
    "teams",
    metadata,
    sa.Column("team", sa.Text, primary_key=True),
    # NULL: the service's default. Live jobs at most.
    sa.Column("max_live_jobs", sa.Integer),
    # NULL: the service's default. Calls per minute and process at most.
    sa.Column("calls_per_minute", sa.Integer),
    sa.Column("created_at", Instant, nullable=False),
)

_LIVE = sa.text("admitted_at IS NOT NULL AND state IN ('QUEUED', 'RUNNING')")
_WAITING = sa.text("admitted_at IS NULL AND state = 'QUEUED'")
_IN_BATCH = sa.text("batch_id IS NOT NULL")
_RETRY = sa.text("retry_of IS NOT NULL AND state <> 'CANCELED'")
_DEAD = sa.text("dead")
_ENDED = sa.text("finished_at IS NOT NULL")
_SUCCEEDED = sa.text("state = 'SUCCEEDED'")
_DONE = sa.text("done_at IS NOT NULL")
_CAPTURES = sa.text("kind = 'CAPTURE'")
_HOLDS = sa.text("kind = 'HOLD'")
_RELEASES = sa.text("kind = 'RELEASE'")

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
    # When assets is asked whether it has heard of the job, or of its end; NULL: it has.
    sa.Column("confirm_at", Instant),
    # Where it belongs; NULL: nowhere, the default folder, no moodboard.
    sa.Column("batch_id", sa.BigInteger),
    sa.Column("variant_index", sa.Integer),
    sa.Column("retry_of", sa.BigInteger),
    sa.Column("folder_id", sa.BigInteger),
    sa.Column("moodboard_id", sa.BigInteger),
    # A retry of the missing images alone: which of how many images of the first job they are.
    sa.Column("shots", Json),
    sa.Column("shots_of", sa.Integer),
    # The prompt's enhancement; the milliseconds say that it is settled.
    sa.Column("prompt_strategy", sa.Text, nullable=False, server_default="NONE"),
    sa.Column("prompt_enhanced", sa.Text),
    sa.Column("prompt_enhance_ms", sa.BigInteger),
    # Credits held at enqueue and given back at the end; NULL: the team has no account, not ended.
    sa.Column("credits_held", sa.BigInteger),
    sa.Column("credits_released", sa.BigInteger),
    # FAILED because attempts or workers were used up.
    sa.Column("dead", sa.Boolean, nullable=False, server_default=sa.false()),
    # What a person said.
    sa.Column("review_state", sa.Text, nullable=False, server_default="PENDING"),
    sa.Column("reviewer", sa.Text),
    sa.Column("reviewed_at", Instant),
    sa.Column("review_notes", sa.Text),
    # The governor made its worker wait until then.
    sa.Column("rate_wait_until", Instant),
    # Claims given back because the provider took no more calls: they are not held against it.
    sa.Column("rate_waits", sa.Integer, nullable=False, server_default=sa.text("0")),
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
    sa.Index(
        "jobs_to_confirm",
        "confirm_at",
        postgresql_where=sa.text("confirm_at IS NOT NULL"),
        sqlite_where=sa.text("confirm_at IS NOT NULL"),
    ),
    sa.Index(
        "jobs_by_batch",
        "batch_id",
        "variant_index",
        postgresql_where=_IN_BATCH,
        sqlite_where=_IN_BATCH,
    ),
    # One retry at a time; a canceled one makes room.
    sa.Index("jobs_retry", "retry_of", unique=True, postgresql_where=_RETRY, sqlite_where=_RETRY),
    sa.Index("jobs_dead", "id", postgresql_where=_DEAD, sqlite_where=_DEAD),
    # For metrics, whose columns it has, and retention.
    sa.Index(
        "jobs_finished",
        "finished_at",
        postgresql_where=_ENDED,
        postgresql_include=["type", "state", "team", "created_at", "started_at"],
        sqlite_where=_ENDED,
    ),
    # For how long the next one will take.
    sa.Index(
        "jobs_succeeded",
        "lane",
        "finished_at",
        postgresql_where=_SUCCEEDED,
        sqlite_where=_SUCCEEDED,
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
    sa.Column("cost_micros", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("rating", sa.Integer, nullable=False, server_default=sa.text("0")),  # 0: none
    sa.CheckConstraint(
        "state IN ('PENDING','DONE','FAILED','CANCELED')", name="images_state_known"
    ),
    sa.CheckConstraint("state <> 'DONE' OR file_id IS NOT NULL", name="images_done_has_file"),
    sa.UniqueConstraint("file_id", name="images_file"),  # a file stands in one slot alone
    sa.Index("images_done", "team", "done_at", postgresql_where=_DONE, sqlite_where=_DONE),
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
    sa.Column("batch_id", sa.BigInteger),  # the job's; NULL: none
    # For cursors over many jobs: on PostgreSQL the transaction's id, on SQLite the next number;
    # within a job it never falls.
    sa.Column("commit_order", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Index("events_by_team", "team", "commit_order", "job_id", "sequence"),
    sa.Index(
        "events_by_batch",
        "batch_id",
        "commit_order",
        "job_id",
        "sequence",
        postgresql_where=_IN_BATCH,
        sqlite_where=_IN_BATCH,
    ),
)

batches = sa.Table(
    "batches",
    metadata,
    id_column(),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Index("batches_by_team", "team", "id"),
    sqlite_autoincrement=True,
)

# One row per team that pays. granted = available + held + captured, always.
accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("team", sa.Text, primary_key=True),
    sa.Column("granted", sa.BigInteger, nullable=False),
    sa.Column("available", sa.BigInteger, nullable=False),
    sa.Column("held", sa.BigInteger, nullable=False),
    sa.Column("captured", sa.BigInteger, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.CheckConstraint(
        "available >= 0 AND held >= 0 AND captured >= 0", name="accounts_never_negative"
    ),
    sa.CheckConstraint("granted = available + held + captured", name="accounts_sum_up"),
)

# The ledger: appended to, never changed. It outlives its jobs.
credit_entries = sa.Table(
    "credit_entries",
    metadata,
    id_column(),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("job_id", sa.BigInteger),
    sa.Column("image_index", sa.Integer),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.CheckConstraint(
        "kind IN ('GRANT','HOLD','CAPTURE','RELEASE')", name="credit_entries_kind_known"
    ),
    sa.CheckConstraint("amount >= 0", name="credit_entries_amount"),
    sa.Index("credit_entries_by_team", "team", "id"),
    sa.Index("credit_entries_by_job", "job_id"),
    sa.Index(
        "credit_entries_capture",
        "job_id",
        "image_index",
        unique=True,
        postgresql_where=_CAPTURES,
        sqlite_where=_CAPTURES,
    ),
    sa.Index(
        "credit_entries_hold",
        "job_id",
        unique=True,
        postgresql_where=_HOLDS,
        sqlite_where=_HOLDS,
    ),
    sa.Index(
        "credit_entries_release",
        "job_id",
        unique=True,
        postgresql_where=_RELEASES,
        sqlite_where=_RELEASES,
    ),
    sqlite_autoincrement=True,
)

# Lanes an operator has paused; others have no row.
paused_lanes = sa.Table(
    "paused_lanes",
    metadata,
    sa.Column("lane", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("paused_at", Instant, nullable=False),
)

# The governor's state, one row per model.
models = sa.Table(
    "models",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("calls_per_minute_limit", sa.Integer, nullable=False),  # 0: no limit
    sa.Column("calls_per_minute", sa.Float, nullable=False),  # now; 0: no limit
    sa.Column("tokens", sa.Float, nullable=False),
    sa.Column("refilled_at", Instant, nullable=False),
    sa.Column("blocked_until", Instant),
    sa.Column("slowed_at", Instant),  # the last 429
    sa.Column("failures", sa.Integer, nullable=False),  # in a row
    sa.Column("circuit", sa.Text, nullable=False),
    sa.Column("probe_until", Instant),  # HALF_OPEN: one call is under way
    sa.CheckConstraint("circuit IN ('CLOSED','OPEN','HALF_OPEN')", name="models_circuit_known"),
)

audit_entries = sa.Table(
    "audit_entries",
    metadata,
    id_column(),
    sa.Column("team", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("job_id", sa.BigInteger),
    sa.Column("details", Json, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Index("audit_entries_by_team", "team", "id"),
    sa.Index("audit_entries_by_job", "job_id"),
    sqlite_autoincrement=True,
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

home = home_table(metadata)
