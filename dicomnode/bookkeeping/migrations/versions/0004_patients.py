"""The patient that each instance names, so that a study of two patients is seen."""

import sqlalchemy as sa
from alembic import op


revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instance", sa.Column("patient_id", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    op.execute("ALTER TABLE instance DROP COLUMN patient_id")  # in place: other tables refer to this one
