"""Alerts by webhook: a POST of JSON; any answer from 200 to 299 takes it."""

from http.client import HTTPException
from urllib.parse import urlsplit

from dicomnode.config import Settings
from dicomnode.https import connect
from dicomnode.notify import secret

PATIENCE = 20.0  # seconds
AUTHORIZATION = "DICOMNODE_WEBHOOK_AUTHORIZATION"


def send(settings: Settings, body: str) -> None:
    """Post the message; raises OSError where it was not taken. Redirections are not followed."""
    url = urlsplit(settings.alerts.webhook_url)
    headers = {"Content-Type": "application/json"}
    if given := secret(AUTHORIZATION):
        headers["Authorization"] = given
    connection = connect(url, PATIENCE, settings.alerts.ca)
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
