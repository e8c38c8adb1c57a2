"""Series by state and time, for the studies that got no maps."""

from alembic import op


revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("series", schema=None) as batch_op:
        batch_op.create_index("ix_series_state_last_received_at", ["state", "last_received_at"], unique=False)
        batch_op.drop_index(batch_op.f("ix_series_state"))


def downgrade() -> None:
    with op.batch_alter_table("series", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_series_state"), ["state"], unique=False)
        batch_op.drop_index("ix_series_state_last_received_at")
