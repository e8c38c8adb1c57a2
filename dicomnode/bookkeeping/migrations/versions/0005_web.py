"""Accounts and their sessions, what the administrator's page asks for, what QIDO-RS looks for."""

from datetime import UTC, datetime

from alembic import op
import sqlalchemy as sa
from ulid import ULID


revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ROLES = ("sender", "viewer", "operator", "administrator")


def upgrade() -> None:
    # Columns are added in place: SQLite would make a table anew only by dropping one that others refer to.
    for name in ("id", "patient_name", "study_date"):
        op.add_column("study", sa.Column(name, sa.String(), nullable=False, server_default=""))
    for name in ("last_slice_at", "done_at", "dismissed_at"):
        op.add_column("job", sa.Column(name, sa.DateTime(), nullable=True))
    _name_studies()
    op.create_index("ix_study_id", "study", ["id"], unique=True)
    op.create_index("ix_study_patient_id", "study", ["patient_id"])
    op.create_index("ix_study_study_date", "study", ["study_date"])
    op.create_index("ix_job_state_id", "job", ["state", "id"])
    op.create_index("ix_job_done_at", "job", ["done_at"])
    op.drop_index("ix_job_state", "job")

    op.create_table(
        "confirmation",
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_confirmation")),
    )
    op.create_table(
        "account",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.Enum(*ROLES, name="role", native_enum=False, length=16), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("locked_until", sa.DateTime(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_account")),
    )
    op.create_table(
        "access",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("csrf", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("used_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["account"], ["account.name"], name=op.f("fk_access_account"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_access")),
    )
    op.create_index("ix_access_account", "access", ["account"])
    op.create_index("ix_access_expires_at", "access", ["expires_at"])


def _name_studies() -> None:
    study = sa.table("study", sa.column("study_instance_uid"), sa.column("id"))
    now, connection = datetime.now(UTC), op.get_bind()
    uids = connection.scalars(sa.select(study.c.study_instance_uid)).all()
    named = sa.update(study).where(study.c.study_instance_uid == sa.bindparam("uid")).values(id=sa.bindparam("ulid"))
    if uids:
        connection.execute(named, [{"uid": uid, "ulid": str(ULID.from_datetime(now))} for uid in uids])


def downgrade() -> None:
    for table in ("access", "account", "confirmation"):
        op.drop_table(table)
    op.create_index("ix_job_state", "job", ["state"])
    for table, names in {"job": ("state_id", "done_at"), "study": ("id", "patient_id", "study_date")}.items():
        for name in names:
            op.drop_index(f"ix_{table}_{name}", table)
    for table, names in {
        "job": ("last_slice_at", "done_at", "dismissed_at"),
        "study": ("id", "patient_name", "study_date"),
    }.items():
        for name in names:
            op.drop_column(table, name)
