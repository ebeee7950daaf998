"""Folders, moodboards, variants, provenance, reviews and quotas."""

import sqlalchemy as sa
from alembic import op

from libs.common.db import Instant, Json, id_column
from libs.common.rls import grant, wall

revision = "0002"
down_revision = "0001"

_LIVE = "deleted_at IS NULL"
_CHANGES = "SELECT, INSERT, UPDATE, DELETE"


def upgrade() -> None:
    _files()
    _folders()
    _moodboards()
    _variants()
    _quotas()
    tables = {
        "folders": "SELECT, INSERT",
        "folder_files": "SELECT, INSERT, DELETE",
        "moodboards": _CHANGES,
        "moodboard_files": _CHANGES,
        "variants": "SELECT, INSERT, UPDATE",
        "storage": "SELECT, INSERT, UPDATE",
        "reservations": _CHANGES,
    }
    for table, app in tables.items():
        wall(table, "assets")
        grant(table, "assets", app)


def _index(
    name: str, table: str, columns: list[str], where: str = "", *, unique: bool = False
) -> None:
    condition = sa.text(where) if where else None
    op.create_index(
        name, table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition
    )


def _files() -> None:
    zero = sa.text("0")
    for column in (
        sa.Column("variant", sa.Text, nullable=False, server_default=""),
        sa.Column("batch_id", sa.BigInteger, nullable=False, server_default=zero),
        sa.Column("inputs", Json),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False, server_default=zero),
        sa.Column("output_tokens", sa.BigInteger, nullable=False, server_default=zero),
        sa.Column("total_tokens", sa.BigInteger, nullable=False, server_default=zero),
        sa.Column("cost_micros", sa.BigInteger, nullable=False, server_default=zero),
        sa.Column("review_state", sa.Text),
    ):
        op.add_column("files", column)
    _index(
        "files_by_variant",
        "files",
        ["team", "variant", "id"],
        f"kind = 'GENERATED' AND {_LIVE} AND recorded_at IS NOT NULL",
    )
    _index("files_uploads", "files", ["team", "id"], f"kind = 'UPLOAD' AND {_LIVE}")
    _index("files_by_age", "files", ["kind", "created_at"], _LIVE)


def _folders() -> None:
    op.create_table(
        "folders",
        id_column(),
        sa.Column("team", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("variant_index", sa.Integer, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.CheckConstraint(
            "kind IN ('NAMED','DEFAULT','BATCH','BATCH_VARIANT')", name="folders_kind_known"
        ),
        sqlite_autoincrement=True,
    )
    _index("folders_by_team", "folders", ["team", "id"])
    _index("folders_name", "folders", ["team", "name"], "kind = 'NAMED'", unique=True)
    _index("folders_default", "folders", ["team"], "kind = 'DEFAULT'", unique=True)
    _index(
        "folders_batch",
        "folders",
        ["team", "batch_id", "variant_index"],
        "batch_id <> 0",
        unique=True,
    )
    op.create_table(
        "folder_files",
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
    )
    _index("folder_files_by_file", "folder_files", ["file_id"])


def _moodboards() -> None:
    op.create_table(
        "moodboards",
        id_column(),
        sa.Column("team", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("style_appendix", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("updated_at", Instant, nullable=False),
        sqlite_autoincrement=True,
    )
    _index("moodboards_by_team", "moodboards", ["team", "id"])
    op.create_table(
        "moodboard_files",
        sa.Column(
            "moodboard_id",
            sa.BigInteger,
            sa.ForeignKey("moodboards.id", ondelete="CASCADE", name="moodboard_files_moodboard"),
            primary_key=True,
        ),
        sa.Column("role", sa.Text, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("team", sa.Text, nullable=False),
        sa.Column(
            "file_id",
            sa.BigInteger,
            sa.ForeignKey("files.id", name="moodboard_files_file"),
            nullable=False,
        ),
    )
    _index("moodboard_files_by_file", "moodboard_files", ["file_id"])


def _variants() -> None:
    op.create_table(
        "variants",
        sa.Column("team", sa.Text, primary_key=True),
        sa.Column("variant_id", sa.Text, primary_key=True),
        sa.Column("product", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("image_file_id", sa.BigInteger),
        sa.Column("updated_at", Instant, nullable=False),
    )
    _index("variants_by_product", "variants", ["team", "product", "variant_id"])


def _quotas() -> None:
    op.create_table(
        "storage",
        sa.Column("team", sa.Text, primary_key=True),
        sa.Column("stored_bytes", sa.BigInteger, nullable=False),
        sa.Column("max_stored_bytes", sa.BigInteger),
        sa.Column("calls_per_minute", sa.Integer),
        sa.CheckConstraint("stored_bytes >= 0", name="storage_never_negative"),
    )
    # What is stored already counts.
    op.execute(
        "INSERT INTO storage (team, stored_bytes) "
        "SELECT team, sum(size_bytes) FROM files WHERE deleted_at IS NULL GROUP BY team"
    )
    op.create_table(
        "reservations",
        sa.Column("token", sa.Text, primary_key=True),
        sa.Column("team", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("expires_at", Instant, nullable=False),
    )
    _index("reservations_by_team", "reservations", ["team"])
    _index("reservations_expiring", "reservations", ["expires_at"])
