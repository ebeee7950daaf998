"""What retention looks for among the folders of batches."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    of_batch = sa.text("batch_id <> 0")
    op.create_index(
        "folders_batch_created",
        "folders",
        ["created_at"],
        postgresql_where=of_batch,
        sqlite_where=of_batch,
    )
