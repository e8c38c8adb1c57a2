"""One STOW-RS request of files as they lie on disk: python -m tests.bench.stow_client URL TOKEN TIMES FILES...

Imports next to nothing, because its start is part of what is measured.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

BOUNDARY = "a-boundary-of-the-bench"
PART = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
END = f"--{BOUNDARY}--\r\n".encode()


def body(paths: Sequence[Path], times: int) -> Iterator[bytes]:
    """The files as parts of one request."""
    for _ in range(times):
        for path in paths:
            yield PART + path.read_bytes() + b"\r\n"
    yield END


def store(url: str, token: str, times: int, paths: Sequence[Path]) -> int:
    """One request; its status, or 0 where it does not name every instance as stored."""
    length = times * sum(len(PART) + path.stat().st_size + 2 for path in paths) + len(END)
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/dicom+json",
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
        "Content-Length": str(length),
    }
    where = urlsplit(url)
    connection = HTTPConnection(where.hostname or "", where.port, timeout=600, blocksize=2**18)
    connection.request("POST", where.path, body(paths, times), headers)
    response = connection.getresponse()
    stored = json.loads(response.read()).get("00081199", {}).get("Value", [])
    return response.status if len(stored) == times * len(paths) else 0


if __name__ == "__main__":
    url, token, times, *names = sys.argv[1:]
    sys.exit(0 if store(url, token, int(times), [Path(name) for name in names]) == 200 else 1)
