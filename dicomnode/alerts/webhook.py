"""Alerts by webhook: a POST of JSON; any answer from 200 to 299 takes it."""

import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from dicomnode.config import Settings
from dicomnode.notify import secret

PATIENCE = 20.0  # seconds
AUTHORIZATION = "DICOMNODE_WEBHOOK_AUTHORIZATION"


def send(settings: Settings, body: str) -> None:
    """Post the message; raises OSError where it was not taken. Redirections are not followed."""
    url = urlsplit(settings.alerts.webhook_url)
    headers = {"Content-Type": "application/json"}
    if given := secret(AUTHORIZATION):
        headers["Authorization"] = given
    host, context = url.hostname or "", ssl.create_default_context(cafile=settings.alerts.ca or None)
    connection = (
        HTTPSConnection(host, url.port, timeout=PATIENCE, context=context)
        if url.scheme == "https"
        else HTTPConnection(host, url.port, timeout=PATIENCE)
    )
    try:
        connection.request("POST", f"{url.path or '/'}{f'?{url.query}' if url.query else ''}", body, headers)
        status = connection.getresponse().status
    except HTTPException as error:
        raise ConnectionError("it does not speak HTTP") from error
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise NotTaken(f"the webhook answers {status}")


class NotTaken(OSError):
    """An answer, and not the one that takes a message."""
