"""dcentvfy of dicom3tools as the judge of a whole study: do all its objects say the same of patient and study?"""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.tools import program

# It files Accession Number and its issuer under the series for some classes and under the study for others.
ARTEFACTS = tuple(
    f"Warning - Different information entities for attribute - Element=<{keyword}> IE <Study> versus <Series>"
    for keyword in ("AccessionNumber", "IssuerOfAccessionNumberSequence")
)


def disagreements(paths: Iterable[Path]) -> set[str]:
    """What dcentvfy says about files of one study, without their names."""
    command = [program("dcentvfy"), *map(str, paths)]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = (re.sub(r" for file .*| in file .*", "", line).strip() for line in (ran.stdout + ran.stderr).splitlines())
    return {line for line in lines if line.startswith(("Error", "Warning")) and line not in ARTEFACTS}
