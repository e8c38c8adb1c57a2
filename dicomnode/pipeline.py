"""One study, from the spool to finished DICOM files. START HERE."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache, partial
from hashlib import sha256
from io import BytesIO
from itertools import islice

from pydicom import dcmread

from dicomnode import __version__, bookkeeping, eligibility, writer
from dicomnode.bookkeeping import ACTOR, Books, Job, Result
from dicomnode.config import Settings
from dicomnode.spool import Spool
from dicomnode.writer import Rendered, Study
from inference import predict, preprocess, quality, volume, weights
from inference.engine import Engine, load_engine
from inference.weights import Manifest

BATCH = 32  # files that share one directory fsync and one transaction


def run(job: Job, settings: Settings, books: Books, spool: Spool) -> int:
    """Compute one job; the number of files that now lie in the spool, recorded and ready to send.

    Raises inference.refusal.Refused where the images turn out not to be for us.
    """
    manifest, generator = engine(settings)
    eligibility.judge_weights(manifest, settings)
    slices = [dcmread(spool.path(instance.path)) for instance in bookkeeping.inputs(books, job.id)]
    head = volume.from_slices(slices)
    prepared = preprocess.prepare(head)
    warnings = quality.judge(head, prepared)
    maps = predict.predict(head, prepared, generator)
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
        warnings=(*job.warnings.splitlines(), *warnings),
    )
    return keep(study, job, settings, books, spool)


def keep(study: Study, job: Job, settings: Settings, books: Books, spool: Spool) -> int:
    """Write what a resumed job does not have yet; every file is durable before the books know it."""
    have = {(r.kind, r.map, r.index) for r in bookkeeping.results(books, job.id)}
    destinations = [(d.name, frozenset(d.objects)) for d in settings.destination]
    kinds = frozenset(writer.ALWAYS).union(*(wanted for _, wanted in destinations))
    objects = writer.write(study, lambda kind, name, index: (kind, name, index) not in have, kinds)
    save = partial(_save, job.id, spool)
    with ThreadPoolExecutor(1) as saving:  # while one object is saved, the next is rendered
        while rows := list(saving.map(save, islice(objects, BATCH))):
            spool.settle(job.id)
            bookkeeping.note_results(books, ACTOR, rows, destinations, datetime.now(UTC))
    return len(writer.plan(study, kinds))


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
