"""Whose images are these? Asked again before anything is made and before anything is sent: patients are merged."""

from datetime import datetime

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books, Job

CONFLICT = "patient-conflict"  # reason code
DIFFERENT = "the images of the study name different patients; nothing is made until all name one"
CHANGED = "the study names another patient now than when the job was opened; nothing of it is sent"
AGREED = "all images of the study name one patient now"


def reopen_agreed(books: Books, study_instance_uid: str, now: datetime) -> set[str]:
    """The patients that the study names; where it is one, what was refused for their difference is judged again."""
    named = bookkeeping.patients(books, study_instance_uid)
    if len(named) <= 1:
        bookkeeping.reopen(books, study_instance_uid, CONFLICT, AGREED, now)
    return named


def conflict(books: Books, job: Job) -> str:
    """Why nothing of a job may be made or sent any more; empty where its patient is still that of the study."""
    named = bookkeeping.patients(books, job.study)
    ours = {instance.patient_id for instance in bookkeeping.inputs(books, job.id)} - {""}
    return CHANGED if named and ours and named != ours else ""
