"""One study, from the spool to finished DICOM files. START HERE."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from itertools import groupby, islice
from pathlib import Path

from pydicom import Dataset

from dicomnode import __version__, bookkeeping, eligibility, exploratory, files, header, identity, ladder, pages, writer
from dicomnode.bookkeeping import ACTOR, Books, Instance, Job
from dicomnode.config import Settings
from dicomnode.crashpoints import crashpoint
from dicomnode.jobs import NO_MAPS
from dicomnode.spool import Spool
from dicomnode.writer import Rendered, Replaced, Study, page
from inference import familiar, pilo, predict, preprocess, quality, volume, weights
from inference.engine import Engine, load_engine
from inference.familiar import Familiar
from inference.maps import PerfusionMap
from inference.pilo import Loop
from inference.refusal import Refused
from inference.volume import Volume
from inference.weights import Manifest

UNTRAINED = "untrained"
BATCH = 32  # files of one kind and map that share one directory fsync and one transaction


@dataclass(frozen=True, slots=True)
class Computed:
    """What became of the slices of one series.

    loop: what maps at other ratios need. warnings: sentences about the images and about the maps.
    """

    slices: list[Dataset]
    volume: Volume
    maps: tuple[PerfusionMap, ...]
    loop: Loop
    warnings: tuple[str, ...]


def run(
    job: Job,
    settings: Settings,
    books: Books,
    spool: Spool,
    wake_deliver: Callable[[], None] = lambda: None,
    ahead: Callable[[], Computed] | None = None,
) -> int:
    """Do one job; the number of files that now lie in the spool, recorded and ready to send.

    wake_deliver: called when more files are ready, so that they are sent while the rest is written.
    ahead: what was computed from the same inputs before there was a job.
    Raises inference.refusal.Refused where the images turn out not to be for us.
    """
    if job.route == NO_MAPS:
        return keep_page(job, settings, books, spool)
    manifest, _ = engine(settings)
    eligibility.judge_weights(manifest, settings)
    if why := identity.conflict(books, job):
        raise Refused(identity.CONFLICT, why)
    found = ahead() if ahead else compute(bookkeeping.inputs(books, job.id), settings, spool)
    warnings = bookkeeping.note_warnings(books, job.id, found.warnings, datetime.now(UTC))
    crashpoint("process.computed")
    slices, head = found.slices, found.volume
    study = Study(
        source=[slices[i] for i in head.order],
        volume=head,
        maps=found.maps,
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
    count = keep(study, job, settings, books, spool, wake_deliver)
    exploratory.keep(study, found.loop, job.id, spool)
    return count


def compute(instances: Iterable[Instance], settings: Settings, spool: Spool) -> Computed:
    """From received slices to maps, judged before and after the generator; raises inference.refusal.Refused."""
    manifest, generator = engine(settings)
    slices = files.slices_of(instances, spool)
    head = volume.from_slices(slices)
    prepared = preprocess.prepare(head)
    with ThreadPoolExecutor(1, "judge") as judging:  # it takes half as long as the generator, and needs nothing of it
        verdict = judging.submit(quality.judge, head, prepared)
        try:
            generated = predict.generate(prepared, generator)
        finally:
            warnings = verdict.result()  # a refusal says more than what the generator made of such images
    maps = predict.on_source(generated.learnt, head, prepared, manifest)
    if manifest.units == "physical" and manifest.training_domain != UNTRAINED:  # of random weights nothing is expected
        warnings += quality.judge_maps(head, prepared, maps)
        if manifest.familiar:
            warnings += _familiar(settings.weights_folder).judge(familiar.describe(prepared, generator))
    loop = pilo.loop(prepared, generated.perfusion, generator.mix, manifest)
    return Computed(slices, head, maps, loop, warnings)


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
    save = partial(files.save, job.id, spool)
    with ThreadPoolExecutor(1) as saving:  # while one object is saved, the next is rendered
        for _, of_one_map in groupby(objects, key=lambda one: (one.kind, one.map)):  # no capture waits for large maps
            while rows := list(saving.map(save, islice(of_one_map, BATCH))):
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
    row = files.save(job.id, spool, Rendered(page.KIND, page.NAME, 0, page.write(said)))
    spool.settle(job.id)
    bookkeeping.note_results(books, ACTOR, [row], pages.wanted(settings.destination), datetime.now(UTC))
    return 1


def engine(settings: Settings) -> tuple[Manifest, Engine]:
    """The weights, checked and loaded once in each worker."""
    return _loaded(settings.weights_folder, settings.processing.threads or max(1, (os.cpu_count() or 1) // 2))


@cache
def _familiar(folder: Path) -> Familiar:
    return familiar.read(folder, weights.read(folder))


@cache
def _loaded(folder: Path, threads: int) -> tuple[Manifest, Engine]:
    found, state = weights.load(folder)
    return found, load_engine(found, state, threads)
