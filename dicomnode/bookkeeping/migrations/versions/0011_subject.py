"""By which lasting name the hospital's provider of OpenID Connect knows whose account it is."""

from alembic import op
import sqlalchemy as sa


revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("account", sa.Column("subject", sa.String(), nullable=True))
    op.create_index(op.f("ix_account_subject"), "account", ["subject"], unique=True)


def downgrade() -> None:
    op.drop_index(op.f("ix_account_subject"), "account")
    op.drop_column("account", "subject")
