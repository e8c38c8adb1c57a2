"""One study, from the spool to finished DICOM files. START HERE."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache, partial
from hashlib import sha256
from io import BytesIO
from itertools import islice

from dicomnode import __version__, bookkeeping, eligibility, header, identity, ladder, pages, writer
from dicomnode.bookkeeping import ACTOR, Books, Job, Result
from dicomnode.config import Settings
from dicomnode.crashpoints import crashpoint
from dicomnode.jobs import NO_MAPS
from dicomnode.spool import Spool
from dicomnode.writer import Rendered, Replaced, Study, page
from inference import frames, predict, preprocess, quality, volume, weights
from inference.engine import Engine, load_engine
from inference.refusal import Refused
from inference.weights import Manifest

UNTRAINED = "untrained"
BATCH = 32  # files that share one directory fsync and one transaction


def run(
    job: Job, settings: Settings, books: Books, spool: Spool, wake_deliver: Callable[[], None] = lambda: None
) -> int:
    """Compute one job; the number of files that now lie in the spool, recorded and ready to send.

    wake_deliver: called when more files are ready, so that they are sent while the rest is written.
    Raises inference.refusal.Refused where the images turn out not to be for us.
    """
    if job.route == NO_MAPS:
        return keep_page(job, settings, books, spool)
    manifest, generator = engine(settings)
    eligibility.judge_weights(manifest, settings)
    if why := identity.conflict(books, job):
        raise Refused(identity.CONFLICT, why)
    received = (header.whole(spool.path(instance.path)) for instance in bookkeeping.inputs(books, job.id))
    slices = [one for ds in received for one in frames.of(ds)]
    head = volume.from_slices(slices)
    prepared = preprocess.prepare(head)
    warnings = bookkeeping.note_warnings(books, job.id, quality.judge(head, prepared), datetime.now(UTC))
    maps = predict.predict(head, prepared, generator)
    if manifest.units == "physical" and manifest.training_domain != UNTRAINED:  # of random weights nothing is expected
        seen = quality.judge_maps(head, prepared, maps)
        warnings = bookkeeping.note_warnings(books, job.id, seen, datetime.now(UTC))
    crashpoint("process.computed")
    study = Study(
        source=[slices[i] for i in head.order],
        volume=head,
        maps=maps,
        manifest=manifest,
        job_key=job.key,
        revision=job.revision,
        supersedes=bookkeeping.revision_of(books, job.supersedes),
        created_at=job.created_at,
        software_version=__version__,
        device_serial_number=settings.node.ae_title,
        simulated_input=any(ds.get("SyntheticData") == "YES" for ds in slices),
        warnings=warnings,
        replaced=_replaced(job, settings, books),
    )
    return keep(study, job, settings, books, spool, wake_deliver)


def _replaced(job: Job, settings: Settings, books: Books) -> tuple[Replaced, ...]:
    """What the destinations that take rejection notes hold of what this job replaces."""
    names = [d.name for d in settings.destination if d.rejection_note]
    sent = bookkeeping.replaced(books, job, names)
    return tuple(Replaced(r.sop_class, r.sop_instance_uid, r.series_instance_uid) for r in sent)


def keep(
    study: Study, job: Job, settings: Settings, books: Books, spool: Spool, wake_deliver: Callable[[], None]
) -> int:
    """Write what a resumed job does not have yet; every file is durable before the books know it."""
    have = {(r.kind, r.map, r.index) for r in bookkeeping.results(books, job.id)}
    destinations = [(d.name, d.kinds) for d in settings.destination]
    kinds = frozenset(writer.ALWAYS).union(
        *(wanted for _, wanted in destinations), ladder.stand_ins(books, settings.destination)
    )
    objects = writer.write(study, lambda kind, name, index: (kind, name, index) not in have, kinds)
    save = partial(_save, job.id, spool)
    with ThreadPoolExecutor(1) as saving:  # while one object is saved, the next is rendered
        while rows := list(saving.map(save, islice(objects, BATCH))):
            spool.settle(job.id)
            bookkeeping.note_results(books, ACTOR, rows, destinations, datetime.now(UTC))
            crashpoint("write.recorded")
            wake_deliver()
    return len(writer.plan(study, kinds))


def keep_page(job: Job, settings: Settings, books: Books, spool: Spool) -> int:
    """Write the page that says why there are no maps; 1, the number of files."""
    if bookkeeping.results(books, job.id):
        return 1  # a resumed job has it
    refusal = pages.reason(books, job)
    paths = [spool.path(instance.path) for instance in bookkeeping.inputs(books, job.id)]
    source = [header.whole(path, pixels=False) for path in paths]
    said = page.Refusal(source, refusal.code, refusal.reason, job.created_at, __version__, settings.node.ae_title)
    row = _save(job.id, spool, Rendered(page.KIND, page.NAME, 0, page.write(said)))
    spool.settle(job.id)
    bookkeeping.note_results(books, ACTOR, [row], pages.wanted(settings.destination), datetime.now(UTC))
    return 1


def _save(job_id: str, spool: Spool, rendered: Rendered) -> Result:
    ds, content = rendered.dataset, BytesIO()
    ds.save_as(content, enforce_file_format=True)
    name = f"{rendered.kind}-{rendered.map}-{rendered.index + 1:03d}.dcm"
    with spool.result(job_id, name) as (path, file):
        file.write(content.getbuffer())
    return Result(
        sop_instance_uid=str(ds.SOPInstanceUID),
        job=job_id,
        series_instance_uid=str(ds.SeriesInstanceUID),
        sop_class=str(ds.SOPClassUID),
        kind=rendered.kind,
        map=rendered.map,
        index=rendered.index,
        path=path,
        sha256=sha256(content.getbuffer()).hexdigest(),
    )


@cache
def engine(settings: Settings) -> tuple[Manifest, Engine]:
    """The weights, checked and loaded once in each worker."""
    found, state = weights.load(settings.weights_folder)
    return found, load_engine(found, state, settings.processing.threads or max(1, (os.cpu_count() or 1) // 2))
