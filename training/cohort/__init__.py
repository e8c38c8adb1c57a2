"""A site's own studies as a cohort: head CT beside the perfusion maps of the site's console (docs/clinical-cohort.md).

`clinical.collect` is the way in. The other files answer one question each: what a series is (`series`), what a map says
and where (`maps`), what a colour means (`colours`), and how the head of one scan lies in another (`registration`).
"""


class Rejected(Exception):
    """A study cannot be used; the message says why, in words that go into the report."""
