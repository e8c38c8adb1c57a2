"""Where are my maps? One study's story in words, and the state of the node on one screen."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books, History, Job, StudyStory
from dicomnode.jobs import NO_MAPS, DeliveryState, SeriesState, State

# What a person can do about a reason code; a code that is not here explains itself in its sentence.
ADVICE: dict[str, str] = {
    "file-missing": "send the series again, and find out why files left the spool",
    "called-ae-title": "mend the called AE title at the sender, or [node] ae_title here",
    "unlisted-source": "add the sender to node.toml as a [[source]] and restart the listener",
    "not-dicom": "look at the file in quarantine; the sender made something that is not DICOM",
    "truncated": "send the instance again; if it fails again, look at the sender's archive",
    "too-few-slices": "send the whole axial head series",
    "gap": "send the missing slices; the series is then judged again",
    "localizer": "nothing to do: the axial series of the same study is what the maps are made from",
    "derived": "send the original axial series instead of the reformat",
    "contrast": "send the non-contrast series; maps cannot be made after contrast",
    "simulated-input": "set accept_simulated = true in node.toml if virtual patients are wanted here",
    "no-route": "nothing to do: the node makes maps of non-contrast head CT only",
    "bone-kernel": "send the series of a soft kernel (H30, STANDARD, FC21, UB)",
    "oblique": "send the axial series",
    "patient-conflict": "mend the patient in the PACS, then send the whole study again",
    "phantom": "nothing to do: a phantom has no perfusion",
    "no-rescale": "have the sender write a Rescale Slope and Intercept that give Hounsfield units, and send again",
    "partial-brain": "send a series that shows the whole head, foramen magnum to vertex",
    "metal": "nothing to do: maps cannot be made from what streaks hide",
    "motion": "send the repeated acquisition, if there is one",
    "units": "the weights or their manifest are wrong: install the folder of weights again",
    "implausible-maps": "nothing to do for this study; where it happens often, the weights do not fit this scanner",
    "weights-locked": "accept the weights for clinical use, or set intended_use to research",
    "wrong-modality": "send a non-contrast head CT",
}

LOST = (DeliveryState.REFUSED, DeliveryState.DEAD)


def tell(books: Books, key: str, now: datetime | None = None) -> Iterator[str]:
    """The lines of `dicomnode explain KEY`; none where the books know nothing of the key."""
    for uid in bookkeeping.find_studies(books, key):
        yield from lines_of(books, bookkeeping.story(books, uid), now or datetime.now(UTC))


def lines_of(books: Books, story: StudyStory, now: datetime) -> Iterator[str]:
    """The story of one study in words; what belongs to a line stands indented below it."""
    silent = {job.id: since for job, since in bookkeeping.stalled(books, now)}
    yield f"Study {story.study.study_instance_uid}"
    yield f"  Accession number {story.study.accession_number or '(none)'}, lane {story.study.lane}"
    for series in story.series:
        count, first, last = story.instances[series.series_instance_uid]
        yield f"  Series {series.series_instance_uid} ({series.modality} {series.description})".rstrip()
        yield f"    {count} instances, {_clock(first)} to {_clock(last)}"
        if series.purged_at:
            yield f"    the files were removed on {series.purged_at:%Y-%m-%d}; the timeline says why"
        yield f"    {series.state}: {_reason(series.reason_code, series.reason or 'waiting for the rest')}"
    for job in story.jobs:
        what = "Page for want of maps" if job.route == NO_MAPS else f"Job {job.id}, route {job.route}"
        yield f"  {what}, revision {job.revision}, attempt {job.attempts}"
        yield f"    {job.state}: {_reason(job.reason_code, job.reason or 'waiting for a worker')}"
        yield from (f"    warning: {sentence}" for sentence in job.warnings.splitlines())
        if job.purged_at:
            yield f"    the results were removed on {job.purged_at:%Y-%m-%d}; the timeline says why"
        if job.id in silent:
            yield f"    {_stalled(job, silent[job.id])}"
        for of, destination, state, status, count in story.deliveries:
            if of == job.id:
                yield f"    {destination}: {count} files {state}{f' ({status})' if status else ''}"
    yield "  Timeline (UTC)"
    start = story.history[0].at if story.history else None
    for row in story.history:
        change = f"{row.before} -> {row.after}" if row.before else row.after
        since = (row.at - (start or row.at)).total_seconds()
        yield f"    {_clock(row.at)} {since:8.2f} s  {_subject(row):6s} {change}: {row.why}{_by(row)}"
    yield from _door_to_map(story)
    yield from _advice(story)


def _door_to_map(story: StudyStory) -> Iterator[str]:
    """Last slice received to last file confirmed, for jobs that are done."""
    for job in story.jobs:
        ended = [row.at for row in story.history if row.subject_id == job.id and row.after == State.DONE]
        if job.route == NO_MAPS:
            continue
        received = [story.instances[s.series_instance_uid][2] for s in story.series if s.state == SeriesState.SELECTED]
        if ended and received:
            yield f"  From the last slice to the last confirmation: {(ended[-1] - max(received)).total_seconds():.2f} s"


def _advice(story: StudyStory) -> Iterator[str]:
    yield from _delivery_advice(story)
    codes = [s.reason_code for s in story.series] + [j.reason_code for j in story.jobs]
    for code in dict.fromkeys(c for c in codes if c in ADVICE):
        yield f"  What to do ({code}): {ADVICE[str(code)]}"


def _delivery_advice(story: StudyStory) -> Iterator[str]:
    """What a destination has refused for good: mended there or here first, then sent again."""
    states = {job.id: job.state for job in story.jobs}
    for job, destination in dict.fromkeys((d[0], d[1]) for d in story.deliveries if d[2] in LOST):
        again = f"retry {job}" if states[job] is State.FAILED else f"resend {job} --to {destination}"
        yield f"  What to do ({destination}): mend what it says above, then `dicomnode {again}`"


def state_of_the_node(books: Books, now: datetime) -> Iterator[str]:
    """The lines of `dicomnode status`."""
    for name, states in bookkeeping.counts(books).items():
        yield f"{name:11s} " + (", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none")
    for lane, count, since in bookkeeping.queued(books):
        waited = (now - since).total_seconds()
        yield f"waiting     {count} {lane}, the first since {_clock(since)} ({waited:.0f} s)"
    for silent, last_sign in bookkeeping.stalled(books, now):
        yield f"stalled     job {silent.id}, {_stalled(silent, last_sign)}"
    for series in bookkeeping.receiving(books)[:3]:
        waited = (now - series.last_received_at).total_seconds()
        yield f"receiving   {series.series_instance_uid}: {len(series.instances)} instances, quiet for {waited:.0f} s"
    for job, accession in bookkeeping.recent_jobs(books):
        reason = _reason(job.reason_code, job.reason or "waiting for a worker")
        yield f"job         {job.id} {accession or '(no accession number)'} {job.state}: {reason}"
    for absence in bookkeeping.absences(books):
        tries = f"{_clock(absence.since)}, {absence.attempts} tries, the next at {_clock(absence.until)}"
        yield f"away        {absence.destination} since {tries}: {absence.why}"
    for ae_title, count, asked in bookkeeping.unanswered(books):
        yield f"commitment  {ae_title} waits for {count} Storage Commitment reports since {_clock(asked)}"
    for subject in ("association", "instance"):
        for code, why, count, last in bookkeeping.refusals(books, subject, now - timedelta(days=1)):
            advice = f"; {ADVICE[code]}" if code in ADVICE and ADVICE[code] not in why else ""
            yield f"refused     {count} x {subject}, last {_clock(last)}: {code}: {why}{advice}"


def _stalled(job: Job, since: datetime) -> str:
    return f"stalled since {_clock(since)}: worker {job.lease_owner} gives no sign; the sweep hands the job to another"


def _subject(row: History) -> str:
    return row.subject_id if row.subject == "destination" else row.subject


def _by(row: History) -> str:
    """The person who did it; the processes of the node, whose names have a colon, do all the rest."""
    return "" if ":" in row.actor else f" (by {row.actor})"


def _reason(code: str | None, words: str) -> str:
    return f"{code}: {words}" if code else words


def _clock(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]
