"""The tables of the books; every moment is UTC."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import DateTime, Enum, ForeignKey, Index, MetaData, Text, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from dicomnode.jobs import DeliveryState, Lane, SeriesState, State
from dicomnode.roles import Role


class Moment(TypeDecorator[datetime]):
    """A moment in UTC, stored without a zone (SQLite knows none) and always read back with one."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a moment without a zone: it would be a guess."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; the books keep UTC")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        return None if value is None else value.replace(tzinfo=UTC)


def _words(kind: type[StrEnum]) -> Enum:
    """States are kept as the words that people read, not as numbers or types of one database."""
    return Enum(kind, native_enum=False, length=16, values_callable=lambda states: [state.value for state in states])


class Base(DeclarativeBase):
    """Names of constraints are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: Moment(),
        **{kind: _words(kind) for kind in (Lane, SeriesState, State, DeliveryState, Role)},
    }


class Study(Base):
    """A DICOM study, known by what its instances say; id is ours, for addresses that name no patient's."""

    __tablename__ = "study"
    study_instance_uid: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True, index=True)
    patient_id: Mapped[str] = mapped_column(index=True)
    patient_name: Mapped[str] = mapped_column(default="")
    study_date: Mapped[str] = mapped_column(default="", index=True)
    accession_number: Mapped[str] = mapped_column(index=True)
    lane: Mapped[Lane]


class Series(Base):
    """A DICOM series and what became of it. purged_at: when the files of its instances were removed."""

    __tablename__ = "series"
    __table_args__ = (
        Index("ix_series_state_last_received_at", "state", "last_received_at"),
        Index("ix_series_purged_at_last_received_at", "purged_at", "last_received_at"),
    )
    series_instance_uid: Mapped[str] = mapped_column(primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey("study.study_instance_uid"), index=True)
    modality: Mapped[str]
    description: Mapped[str]
    state: Mapped[SeriesState]
    reason_code: Mapped[str | None]
    reason: Mapped[str | None]
    completed_by: Mapped[str | None]
    last_received_at: Mapped[datetime]
    purged_at: Mapped[datetime | None]


class Association(Base):
    """One association that brought instances; released_at is empty while it is open."""

    __tablename__ = "association"
    id: Mapped[str] = mapped_column(primary_key=True)
    calling_ae_title: Mapped[str]
    address: Mapped[str]
    opened_at: Mapped[datetime]
    released_at: Mapped[datetime | None] = mapped_column(index=True)


class Instance(Base):
    """One received SOP instance; the same UID with other bytes is another row.

    patient_id: as its header says it; empty for what was received before the books asked.
    """

    __tablename__ = "instance"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "sha256"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    sop_instance_uid: Mapped[str]
    sop_class_uid: Mapped[str]
    patient_id: Mapped[str] = mapped_column(server_default="")
    sha256: Mapped[str]
    series: Mapped[str] = mapped_column(ForeignKey("series.series_instance_uid"), index=True)
    path: Mapped[str]
    bytes: Mapped[int]
    transfer_syntax: Mapped[str]
    calling_ae_title: Mapped[str]
    association: Mapped[str] = mapped_column(ForeignKey("association.id"), index=True)
    received_at: Mapped[datetime]
    purged_at: Mapped[datetime | None]


class Job(Base):
    """One run of one route over one set of inputs; the key makes the same inputs the same job.

    last_slice_at: when the newest of its inputs came; done_at: when every required destination had confirmed;
    dismissed_at: when an operator said that nothing more is to be done about it; purged_at: when its files were
    removed.
    """

    __tablename__ = "job"
    __table_args__ = (
        Index("ix_job_state_id", "state", "id"),
        Index("ix_job_purged_at_created_at", "purged_at", "created_at"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    study: Mapped[str] = mapped_column(ForeignKey("study.study_instance_uid"), index=True)
    route: Mapped[str]
    revision: Mapped[int]
    supersedes: Mapped[str | None] = mapped_column(ForeignKey("job.id"))
    lane: Mapped[Lane]
    state: Mapped[State]
    reason_code: Mapped[str | None]
    reason: Mapped[str | None]
    warnings: Mapped[str] = mapped_column(default="")
    attempts: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    enqueued_at: Mapped[datetime]
    created_at: Mapped[datetime]
    last_slice_at: Mapped[datetime | None]
    done_at: Mapped[datetime | None] = mapped_column(index=True)
    dismissed_at: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]
    engine: Mapped[str]


class JobInput(Base):
    """An instance that a job computes from."""

    __tablename__ = "job_input"
    job: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    instance: Mapped[int] = mapped_column(ForeignKey("instance.id"), primary_key=True)


class Result(Base):
    """One finished DICOM file of a job; it is on disk before it is here, and here before it is sent."""

    __tablename__ = "result"
    __table_args__ = (Index("ix_result_job_kind", "job", "kind"),)
    sop_instance_uid: Mapped[str] = mapped_column(primary_key=True)
    job: Mapped[str] = mapped_column(ForeignKey("job.id"))
    series_instance_uid: Mapped[str]
    sop_class: Mapped[str]
    kind: Mapped[str]
    map: Mapped[str]
    index: Mapped[int]
    path: Mapped[str]
    sha256: Mapped[str]


class Delivery(Base):
    """One result on its way to one destination."""

    __tablename__ = "delivery"
    __table_args__ = (UniqueConstraint("result", "destination"), Index("ix_delivery_state_next_at", "state", "next_at"))
    id: Mapped[int] = mapped_column(primary_key=True)
    result: Mapped[str] = mapped_column(ForeignKey("result.sop_instance_uid"))
    destination: Mapped[str]
    state: Mapped[DeliveryState]
    rung: Mapped[int] = mapped_column(default=0)
    status: Mapped[str | None]
    confirmed_by: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    transaction_uid: Mapped[str | None] = mapped_column(index=True)


class Absence(Base):
    """A destination that does not answer; while `until` lies ahead nothing is tried there."""

    __tablename__ = "absence"
    destination: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime]
    until: Mapped[datetime]
    attempts: Mapped[int]
    why: Mapped[str]


class Confirmation(Base):
    """When a destination last confirmed that it holds a file of ours."""

    __tablename__ = "confirmation"
    destination: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]


class Commitment(Base):
    """A scanner's request that we commit to keeping instances (PS3.4 J.3.2); answered_at is empty until it knows."""

    __tablename__ = "commitment"
    __table_args__ = (
        UniqueConstraint("transaction_uid", "calling_ae_title"),
        Index("ix_commitment_answered_at_next_at", "answered_at", "next_at"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    transaction_uid: Mapped[str]
    calling_ae_title: Mapped[str]
    address: Mapped[str]
    instances: Mapped[str] = mapped_column(Text)  # "SOP class UID SOP instance UID" in each line
    asked_at: Mapped[datetime]
    next_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)
    answered_at: Mapped[datetime | None]
    answer: Mapped[str | None]


class History(Base):
    """What happened, to what, when and why; rows are only ever added."""

    __tablename__ = "history"
    __table_args__ = (Index("ix_history_subject_subject_id", "subject", "subject_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    subject: Mapped[str]
    subject_id: Mapped[str]
    at: Mapped[datetime]
    before: Mapped[str | None]
    after: Mapped[str]
    why: Mapped[str]
    actor: Mapped[str]


class Rendering(Base):
    """Captures of a job's maps at another ratio, in percent, that somebody asked for; done_at: when they were written.

    asked_at: for the first time; offered_at: to a worker, last.
    """

    __tablename__ = "rendering"
    __table_args__ = (
        UniqueConstraint("job", "percent"),
        Index("ix_rendering_done_at_offered_at", "done_at", "offered_at"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    job: Mapped[str] = mapped_column(ForeignKey("job.id"))
    percent: Mapped[int]
    asked_at: Mapped[datetime]
    offered_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)
    done_at: Mapped[datetime | None]


class Account(Base):
    """Who may use the web service, as what; without a password hash only by a token, or by the hospital's provider.

    subject: the provider's lasting name of them; their role is what the provider says.
    """

    __tablename__ = "account"
    name: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[Role]
    password_hash: Mapped[str | None]
    subject: Mapped[str | None] = mapped_column(unique=True, index=True)
    failures: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[datetime | None]
    created_at: Mapped[datetime]


class Access(Base):
    """A session of a browser, a token of a program, or a link to one job's page; only the digest of its secret is here.

    job: of a link.
    """

    __tablename__ = "access"
    digest: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("account.name", ondelete="CASCADE"), index=True)
    kind: Mapped[str]
    csrf: Mapped[str]
    created_at: Mapped[datetime]
    used_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    job: Mapped[str] = mapped_column(server_default="")


class Audit(Base):
    """One message of the audit trail (PS3.15 A.5); rows are only ever added, each over the hash of the one before."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    event: Mapped[str] = mapped_column(Text)
    previous_hash: Mapped[str] = mapped_column(unique=True)
    hash: Mapped[str]


class AuditHead(Base):
    """Where the audit trail ends; one row, which whoever adds to the trail locks, and which a cut end contradicts."""

    __tablename__ = "audit_head"
    id: Mapped[int] = mapped_column(primary_key=True)
    events: Mapped[int]
    hash: Mapped[str]


class Pulse(Base):
    """A process of the node and its last sign of life."""

    __tablename__ = "pulse"
    process: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class Alert(Base):
    """Something that somebody should look at. told_at and end_told_at: when its beginning and end were last told."""

    __tablename__ = "alert"
    kind: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    told_at: Mapped[datetime | None]
    end_told_at: Mapped[datetime | None]


class Notice(Base):
    """A message about alerts on its way through one channel; it goes when it has been taken."""

    __tablename__ = "notice"
    id: Mapped[int] = mapped_column(primary_key=True)
    channel: Mapped[str]
    body: Mapped[str] = mapped_column(Text)
    made_at: Mapped[datetime]
    next_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)
