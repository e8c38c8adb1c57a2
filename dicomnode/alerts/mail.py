"""Alerts by e-mail: over TLS, or in the clear to a relay that asks for no password."""

import json
import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid

from dicomnode.alerts import message
from dicomnode.config import Settings
from dicomnode.notify import secret

PATIENCE = 20.0  # seconds for each answer of the server
PASSWORD = "DICOMNODE_SMTP_PASSWORD"


def send(settings: Settings, body: str) -> None:
    """One message to all recipients; raises OSError where the server did not take it."""
    alerts, said = settings.alerts, json.loads(body)
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = message.subject(said), alerts.email_from, ", ".join(alerts.email_to)
    mail["Date"], mail["Message-ID"] = format_datetime(datetime.now(UTC)), make_msgid(domain="dicomnode.invalid")
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answer from who is on holiday
    mail.set_content("\n".join(message.lines(said)))
    with connect(settings) as server:
        server.send_message(mail)


def connect(settings: Settings) -> smtplib.SMTP:
    """The server, which knows us if it asks for that; raises OSError."""
    server = _connect(settings)
    try:
        if settings.alerts.smtp_user:
            server.login(settings.alerts.smtp_user, secret(PASSWORD) or "")
    except BaseException:
        server.close()
        raise
    return server


def _connect(settings: Settings) -> smtplib.SMTP:
    alerts = settings.alerts
    where, context = (alerts.smtp_host, alerts.smtp_port), ssl.create_default_context(cafile=alerts.ca or None)
    if alerts.smtp_security == "tls":
        return smtplib.SMTP_SSL(*where, timeout=PATIENCE, context=context)
    server = smtplib.SMTP(*where, timeout=PATIENCE)
    if alerts.smtp_security == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server
