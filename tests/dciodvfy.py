"""dciodvfy of dicom3tools as the judge of what we write, and the one list of what it may say.

`dciodvfy-allow-list.txt` holds a line per message and kind of object, `kind: message`, item numbers as [n]. A message
that is not on the list fails, and so does a line that nothing needs any more.
"""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.tools import program

ALLOW_LIST = Path(__file__).with_name("dciodvfy-allow-list.txt")


def messages(path: Path) -> set[str]:
    """The errors and warnings of dciodvfy about one file."""
    command = [program("dciodvfy"), "-new", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = (ran.stdout + ran.stderr).splitlines()
    return {re.sub(r"\[\d+\]", "[n]", line) for line in lines if line.startswith(("Error", "Warning"))}


def allowed(kind: str) -> set[str]:
    """What dciodvfy may say about one kind of object."""
    lines = [line for line in ALLOW_LIST.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {message for of, message in (line.split(": ", 1) for line in lines) if of == kind}


def unexpected(kind: str, path: Path) -> set[str]:
    """What dciodvfy says about a file and the list does not allow."""
    return messages(path) - allowed(kind)


def unused(kind: str, paths: Iterable[Path]) -> set[str]:
    """Lines of the list that none of the files of a kind needs."""
    said: set[str] = set().union(*map(messages, paths))
    return allowed(kind) - said
