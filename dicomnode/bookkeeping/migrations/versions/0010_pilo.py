"""Captures at other ratios that people ask for, and links that open the page of one job for a few minutes."""

from alembic import op
import sqlalchemy as sa


revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rendering",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.DateTime(), nullable=False),
        sa.Column("offered_at", sa.DateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("done_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["job"], ["job.id"], name=op.f("fk_rendering_job")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rendering")),
        sa.UniqueConstraint("job", "percent", name=op.f("uq_rendering_job_percent")),
    )
    op.create_index("ix_rendering_done_at_offered_at", "rendering", ["done_at", "offered_at"])
    op.add_column("access", sa.Column("job", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("access", "job")
    op.drop_table("rendering")
