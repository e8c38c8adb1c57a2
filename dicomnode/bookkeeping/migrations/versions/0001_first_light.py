"""The tables of first light."""

from alembic import op
import sqlalchemy as sa


revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "association",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("calling_ae_title", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("opened_at", sa.DateTime(), nullable=False),
        sa.Column("released_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_association")),
    )
    with op.batch_alter_table("association", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_association_released_at"), ["released_at"], unique=False)

    op.create_table(
        "history",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("subject_id", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("before", sa.String(), nullable=True),
        sa.Column("after", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_history")),
    )
    with op.batch_alter_table("history", schema=None) as batch_op:
        batch_op.create_index("ix_history_subject_subject_id", ["subject", "subject_id"], unique=False)

    op.create_table(
        "study",
        sa.Column("study_instance_uid", sa.String(), nullable=False),
        sa.Column("patient_id", sa.String(), nullable=False),
        sa.Column("accession_number", sa.String(), nullable=False),
        sa.Column("lane", sa.Enum("stroke", "routine", name="lane", native_enum=False, length=16), nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_study")),
    )
    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_study_accession_number"), ["accession_number"], unique=False)

    op.create_table(
        "job",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("study", sa.String(), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("supersedes", sa.String(), nullable=True),
        sa.Column("lane", sa.Enum("stroke", "routine", name="lane", native_enum=False, length=16), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "QUEUED",
                "PROCESSING",
                "SENDING",
                "DONE",
                "REJECTED",
                "FAILED",
                name="state",
                native_enum=False,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("reason_code", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("warnings", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_until", sa.DateTime(), nullable=True),
        sa.Column("enqueued_at", sa.DateTime(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("engine", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["study.study_instance_uid"], name=op.f("fk_job_study")),
        sa.ForeignKeyConstraint(["supersedes"], ["job.id"], name=op.f("fk_job_supersedes")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("key", name=op.f("uq_job_key")),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_job_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_job_study"), ["study"], unique=False)

    op.create_table(
        "series",
        sa.Column("series_instance_uid", sa.String(), nullable=False),
        sa.Column("study", sa.String(), nullable=False),
        sa.Column("modality", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "RECEIVING",
                "COMPLETE",
                "SELECTED",
                "NOT_SELECTED",
                "REFUSED",
                name="seriesstate",
                native_enum=False,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("reason_code", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("completed_by", sa.String(), nullable=True),
        sa.Column("last_received_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["study.study_instance_uid"], name=op.f("fk_series_study")),
        sa.PrimaryKeyConstraint("series_instance_uid", name=op.f("pk_series")),
    )
    with op.batch_alter_table("series", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_series_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_series_study"), ["study"], unique=False)

    op.create_table(
        "instance",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.Column("sop_class_uid", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("series", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("transfer_syntax", sa.String(), nullable=False),
        sa.Column("calling_ae_title", sa.String(), nullable=False),
        sa.Column("association", sa.String(), nullable=False),
        sa.Column("received_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["association"], ["association.id"], name=op.f("fk_instance_association")),
        sa.ForeignKeyConstraint(["series"], ["series.series_instance_uid"], name=op.f("fk_instance_series")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance")),
        sa.UniqueConstraint("sop_instance_uid", "sha256", name=op.f("uq_instance_sop_instance_uid_sha256")),
    )
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_instance_association"), ["association"], unique=False)
        batch_op.create_index(batch_op.f("ix_instance_series"), ["series"], unique=False)

    op.create_table(
        "result",
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("series_instance_uid", sa.String(), nullable=False),
        sa.Column("sop_class", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("map", sa.String(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["job.id"], name=op.f("fk_result_job")),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_result")),
    )
    with op.batch_alter_table("result", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_result_job"), ["job"], unique=False)

    op.create_table(
        "delivery",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("result", sa.String(), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "PENDING", "SENT", "CONFIRMED", "REFUSED", "DEAD", name="deliverystate", native_enum=False, length=16
            ),
            nullable=False,
        ),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=True),
        sa.Column("confirmed_by", sa.String(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["result"], ["result.sop_instance_uid"], name=op.f("fk_delivery_result")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.UniqueConstraint("result", "destination", name=op.f("uq_delivery_result_destination")),
    )
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.create_index("ix_delivery_state_next_at", ["state", "next_at"], unique=False)

    op.create_table(
        "job_input",
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("instance", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["instance"], ["instance.id"], name=op.f("fk_job_input_instance")),
        sa.ForeignKeyConstraint(["job"], ["job.id"], name=op.f("fk_job_input_job")),
        sa.PrimaryKeyConstraint("job", "instance", name=op.f("pk_job_input")),
    )


def downgrade() -> None:
    op.drop_table("job_input")
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.drop_index("ix_delivery_state_next_at")

    op.drop_table("delivery")
    with op.batch_alter_table("result", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_result_job"))

    op.drop_table("result")
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_instance_series"))
        batch_op.drop_index(batch_op.f("ix_instance_association"))

    op.drop_table("instance")
    with op.batch_alter_table("series", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_series_study"))
        batch_op.drop_index(batch_op.f("ix_series_state"))

    op.drop_table("series")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_job_study"))
        batch_op.drop_index(batch_op.f("ix_job_state"))

    op.drop_table("job")
    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_study_accession_number"))

    op.drop_table("study")
    with op.batch_alter_table("history", schema=None) as batch_op:
        batch_op.drop_index("ix_history_subject_subject_id")

    op.drop_table("history")
    with op.batch_alter_table("association", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_association_released_at"))

    op.drop_table("association")
