"""Whose files have been removed from the disk, and when."""

from alembic import op
import sqlalchemy as sa


revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = ("instance", "series", "job")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("purged_at", sa.DateTime(), nullable=True))
    op.create_index("ix_series_purged_at_last_received_at", "series", ["purged_at", "last_received_at"])
    op.create_index("ix_job_purged_at_created_at", "job", ["purged_at", "created_at"])


def downgrade() -> None:
    op.drop_index("ix_job_purged_at_created_at", "job")
    op.drop_index("ix_series_purged_at_last_received_at", "series")
    for table in TABLES:
        op.drop_column(table, "purged_at")
