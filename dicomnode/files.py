"""The slices that a job was given, and the objects that it leaves, as files of the spool."""

from collections.abc import Iterable
from hashlib import sha256
from io import BytesIO

from pydicom import Dataset

from dicomnode import header
from dicomnode.bookkeeping import Instance, Result
from dicomnode.spool import Spool
from dicomnode.writer import Rendered
from inference import frames


def slices_of(instances: Iterable[Instance], spool: Spool) -> list[Dataset]:
    """The slices of received instances with their pixels, whatever objects they came in."""
    return [one for instance in instances for one in frames.of(header.whole(spool.path(instance.path)))]


def save(job_id: str, spool: Spool, rendered: Rendered) -> Result:
    """Write one object; its row for the books. Its name is durable after `Spool.settle`."""
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
