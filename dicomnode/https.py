"""A connection to one of the hospital's web servers, for the little that we ask of it."""

import ssl
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import SplitResult


def connect(url: SplitResult, patience: float, ca: str = "") -> HTTPConnection:
    """Not yet connected; patience in seconds, ca: who has signed its certificate, else whom the system trusts."""
    host = url.hostname or ""
    if url.scheme == "http":
        return HTTPConnection(host, url.port, timeout=patience)
    context = ssl.create_default_context(cafile=ca or None)
    return HTTPSConnection(host, url.port, timeout=patience, context=context)
