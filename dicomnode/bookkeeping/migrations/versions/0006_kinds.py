"""Results by job and kind, for searches by modality."""

from alembic import op


revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_result_job_kind", "result", ["job", "kind"])
    op.drop_index("ix_result_job", "result")


def downgrade() -> None:
    op.create_index("ix_result_job", "result", ["job"])
    op.drop_index("ix_result_job_kind", "result")
