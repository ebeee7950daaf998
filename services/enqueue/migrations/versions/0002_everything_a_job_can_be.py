"""Batches, credits, retries, reviews, the governor, audit, and cursors over many jobs."""

import sqlalchemy as sa
from alembic import op

from libs.common.db import Instant, Json, id_column
from libs.common.rls import grant, wall

revision = "0002"
down_revision = "0001"

_IN_BATCH = sa.text("batch_id IS NOT NULL")


def upgrade() -> None:
    op.add_column("teams", sa.Column("calls_per_minute", sa.Integer))
    _jobs()
    _images_and_events()
    _batches()
    _credits()
    _ops()
    for table in ("batches", "accounts", "credit_entries", "audit_entries"):
        wall(table, "enqueue")
    grant("batches", "enqueue", "SELECT, INSERT")
    grant("accounts", "enqueue", "SELECT, UPDATE")
    grant("credit_entries", "enqueue", "SELECT, INSERT", "SELECT, INSERT")
    grant("audit_entries", "enqueue", "SELECT, INSERT", "SELECT, INSERT, DELETE")
    grant("paused_lanes", "enqueue", "")
    grant("models", "enqueue", "")


def _index(
    name: str, table: str, columns: list[str], where: str = "", *, unique: bool = False
) -> None:
    condition = sa.text(where) if where else None
    op.create_index(
        name, table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition
    )


def _jobs() -> None:
    for column in (
        sa.Column("batch_id", sa.BigInteger),
        sa.Column("variant_index", sa.Integer),
        sa.Column("retry_of", sa.BigInteger),
        sa.Column("folder_id", sa.BigInteger),
        sa.Column("moodboard_id", sa.BigInteger),
        sa.Column("shots", Json),
        sa.Column("shots_of", sa.Integer),
        sa.Column("prompt_strategy", sa.Text, nullable=False, server_default="NONE"),
        sa.Column("prompt_enhanced", sa.Text),
        sa.Column("prompt_enhance_ms", sa.BigInteger),
        sa.Column("credits_held", sa.BigInteger),
        sa.Column("credits_released", sa.BigInteger),
        sa.Column("dead", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("review_state", sa.Text, nullable=False, server_default="PENDING"),
        sa.Column("reviewer", sa.Text),
        sa.Column("reviewed_at", Instant),
        sa.Column("review_notes", sa.Text),
        sa.Column("rate_wait_until", Instant),
    ):
        op.add_column("jobs", column)
    _index("jobs_by_batch", "jobs", ["batch_id", "variant_index"], "batch_id IS NOT NULL")
    _index(
        "jobs_retry",
        "jobs",
        ["retry_of"],
        "retry_of IS NOT NULL AND state <> 'CANCELED'",
        unique=True,
    )
    _index("jobs_dead", "jobs", ["id"], "dead")
    _index("jobs_finished", "jobs", ["finished_at"], "finished_at IS NOT NULL")


def _images_and_events() -> None:
    zero = sa.text("0")
    op.add_column(
        "images", sa.Column("cost_micros", sa.BigInteger, nullable=False, server_default=zero)
    )
    op.add_column("images", sa.Column("rating", sa.Integer, nullable=False, server_default=zero))
    _index("images_done", "images", ["team", "done_at"], "done_at IS NOT NULL")
    op.add_column("events", sa.Column("batch_id", sa.BigInteger))
    op.add_column(
        "events", sa.Column("commit_order", sa.BigInteger, nullable=False, server_default=zero)
    )
    order = ["commit_order", "job_id", "sequence"]
    _index("events_by_team", "events", ["team", *order])
    _index("events_by_batch", "events", ["batch_id", *order], "batch_id IS NOT NULL")


def _batches() -> None:
    op.create_table(
        "batches",
        id_column(),
        sa.Column("team", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sqlite_autoincrement=True,
    )
    _index("batches_by_team", "batches", ["team", "id"])


def _credits() -> None:
    op.create_table(
        "accounts",
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
    op.create_table(
        "credit_entries",
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
        sqlite_autoincrement=True,
    )
    _index("credit_entries_by_team", "credit_entries", ["team", "id"])
    _index("credit_entries_by_job", "credit_entries", ["job_id"])
    for name, kind, columns in (
        ("capture", "CAPTURE", ["job_id", "image_index"]),
        ("hold", "HOLD", ["job_id"]),
        ("release", "RELEASE", ["job_id"]),
    ):
        _index(f"credit_entries_{name}", "credit_entries", columns, f"kind = '{kind}'", unique=True)


def _ops() -> None:
    op.create_table(
        "paused_lanes",
        sa.Column("lane", sa.Text, primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("paused_at", Instant, nullable=False),
    )
    op.create_table(
        "models",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("calls_per_minute_limit", sa.Integer, nullable=False),
        sa.Column("calls_per_minute", sa.Float, nullable=False),
        sa.Column("tokens", sa.Float, nullable=False),
        sa.Column("refilled_at", Instant, nullable=False),
        sa.Column("blocked_until", Instant),
        sa.Column("slowed_at", Instant),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("circuit", sa.Text, nullable=False),
        sa.Column("probe_until", Instant),
        sa.CheckConstraint("circuit IN ('CLOSED','OPEN','HALF_OPEN')", name="models_circuit_known"),
    )
    op.create_table(
        "audit_entries",
        id_column(),
        sa.Column("team", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("job_id", sa.BigInteger),
        sa.Column("details", Json, nullable=False),
        sa.Column("at", Instant, nullable=False),
        sqlite_autoincrement=True,
    )
    _index("audit_entries_by_team", "audit_entries", ["team", "id"])
    _index("audit_entries_by_job", "audit_entries", ["job_id"])
