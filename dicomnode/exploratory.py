"""The physician in the loop: what a finished job keeps for other ratios, and the captures made of it on request.

`results/<job>/pilo.npz` holds the head before its last layer (`inference.pilo`) and, as JSON, what the page must say.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from dicomnode import __version__, bookkeeping, files, writer
from dicomnode.bookkeeping import ACTOR, Books, Job, Rendering
from dicomnode.config import Settings
from dicomnode.spool import PILO, Spool
from dicomnode.writer import Study, capture, secondary_capture
from dicomnode.writer.palette import RAINBOW
from inference import pilo, preprocess, volume
from inference.pilo import Loop

BATCH = 32  # files that share one directory fsync and one transaction


def keep(study: Study, loop: Loop, job_id: str, spool: Spool) -> None:
    """Keep what the page and other ratios need, durably."""
    with spool.result(job_id, PILO) as (_, file):
        pilo.save(file, loop, {"about": np.array(json.dumps(about(study, loop), ensure_ascii=False))})
    spool.settle(job_id)


def about(study: Study, loop: Loop) -> dict[str, Any]:
    """What the page must know besides voxels: places, the last layer of each map, colours, volumes, cautions."""
    return {
        "shape": list(loop.mask.shape),
        "heights": loop.grid.heights.tolist(),
        "spacing": preprocess.SPACING,
        "window": list(preprocess.WINDOW),
        "palette": RAINBOW.ravel().tolist(),
        "maps": [_map(study, loop, k) for k in range(len(loop.mix))],
        "volumes": _volumes(study),
        "cautions": [line.text for line in capture.cautions(study)],
        "made_by": [line.text for line in capture.footer(study, "Maps")[2:]],
    }


def _map(study: Study, loop: Loop, k: int) -> dict[str, Any]:
    kind = loop.manifest.map_kinds[k]
    bar, how = secondary_capture.bar(study, kind), loop.manifest.smoothing.get(kind.name)
    return {
        "name": kind.name,
        "title": kind.title,
        "ceiling": kind.ceiling,
        "unit": bar.unit,
        "labels": list(bar.labels),
        "mix": loop.mix[k].tolist(),
        "smoothing": {"above": how.above, "sigma_mm": how.sigma_mm} if how else None,
    }


def _volumes(study: Study) -> dict[str, float | None] | None:
    """ml of the regions (design.md contract 13), on the source grid and of the maps at 0.5."""
    found = study.regions
    if found is None:
        return None
    return {
        "core_ml": found.core_ml,
        "hypoperfused_ml": found.hypoperfused_ml,
        "mismatch_ml": found.mismatch_ml,
        "mismatch_ratio": found.mismatch_ratio,
    }


def run(asked: Rendering, job: Job, settings: Settings, books: Books, spool: Spool) -> int:
    """Write the captures of one ratio that somebody asked for, as far as they are not there; how many there are.

    Equal requests of one job make equal objects: their time is that of the first request.
    """
    loop = pilo.load(spool.pilo(job.id))
    slices = files.slices_of(bookkeeping.inputs(books, job.id), spool)
    head = volume.from_slices(slices)
    study = Study(
        source=[slices[i] for i in head.order],
        volume=head,
        maps=loop.maps(asked.percent / 100, head),
        manifest=loop.manifest,
        job_key=job.key,
        revision=job.revision,
        supersedes=bookkeeping.revision_of(books, job.supersedes),
        created_at=asked.asked_at,
        software_version=__version__,
        device_serial_number=settings.node.ae_title,
        simulated_input=any(ds.get("SyntheticData") == "YES" for ds in slices),
        warnings=tuple(job.warnings.splitlines()),
    )
    have = {(r.kind, r.map, r.index) for r in bookkeeping.results(books, job.id)}
    objects = writer.explore(study, asked.percent, lambda *item: item not in have)
    destinations = [(d.name, d.kinds) for d in settings.destination]
    save = partial(files.save, job.id, spool)
    with ThreadPoolExecutor(1) as saving:
        while rows := list(saving.map(save, islice(objects, BATCH))):
            spool.settle(job.id)
            bookkeeping.note_results(books, ACTOR, rows, destinations, datetime.now(UTC))
    return len(study.maps) * len(study.source)
