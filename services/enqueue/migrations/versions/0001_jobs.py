"""Jobs, their images and events, keys, workers and the outbox."""

import sqlalchemy as sa
from alembic import op

from libs.common.db import Instant, Json, id_column
from libs.common.rls import grant, wall

revision = "0001"
down_revision = None

_LIVE = sa.text("admitted_at IS NOT NULL AND state IN ('QUEUED', 'RUNNING')")
_WAITING = sa.text("admitted_at IS NULL AND state = 'QUEUED'")
_BACKING_OFF = sa.text("admitted_at IS NULL AND not_before IS NOT NULL")


def upgrade() -> None:
    _teams()
    _jobs()
    _images_and_events()
    _the_rest()
    for table in ("teams", "jobs", "images", "events", "idempotency_keys"):
        wall(table, "enqueue")
    grant("teams", "enqueue", "SELECT, INSERT, UPDATE")
    grant("jobs", "enqueue", "SELECT, INSERT, UPDATE")
    grant("images", "enqueue", "SELECT, INSERT, UPDATE")
    grant("events", "enqueue", "SELECT, INSERT")
    grant("idempotency_keys", "enqueue", "SELECT, INSERT")
    grant("workers", "enqueue", "")
    # No SELECT: a row of the outbox may be of any team.
    grant("outbox", "enqueue", "INSERT")


def _teams() -> None:
    op.create_table(
        "teams",
        sa.Column("team", sa.Text, primary_key=True),
        sa.Column("max_live_jobs", sa.Integer),
        sa.Column("created_at", Instant, nullable=False),
    )


def _jobs() -> None:
    texts = (
        *("type", "lane", "quality", "format", "schema_key", "aspect_ratio", "prompt_original"),
        *("product", "variant", "destination", "workspace_session_id", "template_name"),
        *("source_task_id", "pin_token", "state", "archive_state"),
    )
    counts = (
        *("number_of_variations", "priority", "images_done", "images_failed", "attempts"),
        *("max_attempts", "lost_workers", "dispatch_no", "rings", "archive_rings"),
    )
    op.create_table(
        "jobs",
        id_column(),
        sa.Column("team", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts),
        *(sa.Column(name, sa.Integer, nullable=False) for name in counts),
        sa.Column("input", Json, nullable=False),
        sa.Column("inputs", Json, nullable=False),
        sa.Column("moodboard_snapshot", Json),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("error_reason", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("started_at", Instant),
        sa.Column("finished_at", Instant),
        sa.Column("admitted_at", Instant),
        sa.Column("ring_at", Instant),
        sa.Column("not_before", Instant),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("claim_id", sa.Text),
        sa.Column("worker", sa.Text),
        sa.Column("lease_expires_at", Instant),
        sa.Column("archive_file_id", sa.BigInteger),
        sa.Column("archive_filename", sa.Text),
        sa.Column("archive_size_bytes", sa.BigInteger),
        sa.Column("archive_error_reason", sa.Text),
        sa.Column("archive_error_message", sa.Text),
        sa.Column("archive_ring_at", Instant),
        sa.CheckConstraint(
            "state IN ('QUEUED','RUNNING','SUCCEEDED','FAILED','CANCELED')",
            name="jobs_state_known",
        ),
        sa.CheckConstraint(
            "images_done + images_failed <= number_of_variations", name="jobs_images_within"
        ),
        sa.CheckConstraint(
            "state <> 'RUNNING' OR (admitted_at IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name="jobs_running_has_lease",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_by_team", "jobs", ["team", "id"])
    for name, columns, where in (
        ("jobs_live", ["team"], _LIVE),
        ("jobs_waiting", ["team", "priority", "id"], _WAITING),
        ("jobs_backing_off", ["not_before"], _BACKING_OFF),
        ("jobs_leases", ["lease_expires_at"], sa.text("state = 'RUNNING'")),
        ("jobs_to_ring", ["ring_at"], sa.text("ring_at IS NOT NULL")),
        ("jobs_archives_to_ring", ["archive_ring_at"], sa.text("archive_ring_at IS NOT NULL")),
    ):
        op.create_index(name, "jobs", columns, postgresql_where=where, sqlite_where=where)


def _images_and_events() -> None:
    op.create_table(
        "images",
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
        sa.UniqueConstraint("file_id", name="images_file"),
    )
    op.create_table(
        "events",
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
        "workers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("lanes", Json, nullable=False),
        sa.Column("slots", sa.Integer, nullable=False),
        sa.Column("running", sa.Integer, nullable=False),
        sa.Column("seen_at", Instant, nullable=False),
    )
    op.create_table(
        "outbox",
        id_column(),
        sa.Column("routing_key", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("taken_until", Instant),
        sqlite_autoincrement=True,
    )
