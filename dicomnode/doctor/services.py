"""What the node leans on and consists of: books, broker, processes, accounts and who vouches for them, mail server."""

import os
from collections.abc import Iterator
from datetime import datetime
from importlib.util import find_spec

from dicomnode import bookkeeping, oidc, tasks
from dicomnode.alerts import mail
from dicomnode.bookkeeping import BooksAway, BooksOutdated
from dicomnode.config import Settings
from dicomnode.doctor.finding import Finding
from dicomnode.notify import secret
from dicomnode.pulse import lacking
from dicomnode.roles import Role

START = "start them: `dicomnode up`, or the services one by one (`systemctl status 'dicomnode*'`)"


def books(settings: Settings, _: datetime) -> Iterator[Finding]:
    """The database answers, with tables of this version."""
    try:
        bookkeeping.close(bookkeeping.open_books(settings.books_url))
    except BooksOutdated as outdated:
        yield Finding("books", str(outdated), "run `dicomnode migrate`")
    except BooksAway as away:
        remedy = "start the database, or mend [books] url; for a new SQLite run `dicomnode migrate`"
        yield Finding("books", str(away.orig), remedy)
    else:
        yield Finding("books", "reachable, tables of this version")


def broker(settings: Settings, _: datetime) -> Iterator[Finding]:
    """Messages can be left with the broker; nothing is left there."""
    folder = settings.node.data_dir / "broker"
    if settings.broker.url:
        why = tasks.find_broker(settings)
        remedy = "start the broker, or mend [broker] url" if why else ""
        yield Finding("broker", why or "answers", remedy)
    elif not folder.is_dir():
        yield Finding("broker", f"{folder} does not exist", "run `dicomnode migrate`")
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("broker", f"{folder} is not writable for this account", f"chown it to user {os.getuid()}")
    else:
        yield Finding("broker", f"embedded, in {folder}")


def accounts(settings: Settings, _: datetime) -> Iterator[Finding]:
    """Nobody gets in by default, so the first administrator has to be made by hand."""
    if not settings.web.enabled:
        return
    try:
        opened = bookkeeping.open_books(settings.books_url)
        found = bookkeeping.accounts(opened)
        bookkeeping.close(opened)
    except (BooksOutdated, BooksAway):
        yield Finding("accounts", "the books cannot tell", "mend the books first")
        return
    administrators = [account.name for account, _ in found if account.role is Role.ADMINISTRATOR]
    remedy = "" if administrators else "run `dicomnode account add NAME --role administrator`"
    yield Finding("accounts", f"{len(found)}, administrators: {', '.join(administrators) or 'none'}", remedy)


def provider(settings: Settings, _: datetime) -> Iterator[Finding]:
    """The provider of [web.oidc] answers as the issuer it is set to be, and we have what it wants of us."""
    setting = settings.web.oidc
    if not (settings.web.enabled and setting.issuer):
        return
    if find_spec("jwt") is None:
        yield Finding("provider", "PyJWT is not installed", "pip install 'perfusion-node[oidc]'")
        return
    if not secret(oidc.SECRET):
        yield Finding("provider", "no client secret", f"set the environment variable or credential {oidc.SECRET}")
        return
    try:
        oidc.discover(setting)
    except oidc.Away as away:
        yield Finding("provider", str(away), "mend issuer or ca in [web.oidc], or let this machine reach the provider")
    else:
        yield Finding("provider", f"{setting.issuer} answers")


def alive(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Of a node that runs, every part gives signs of life; one that is stopped is well."""
    try:
        opened = bookkeeping.open_books(settings.books_url)
        roles = bookkeeping.alive(opened, now)
        bookkeeping.close(opened)
    except (BooksOutdated, BooksAway):
        yield Finding("services", "the books cannot tell", "mend the books first")
        return
    living = [role for role, count in roles.items() if count]
    silent = [f"{role} is silent" for role, count in roles.items() if not count]
    wrong = [*silent, *(lacking(living) if living else ())]
    counted = ", ".join(f"{count} {role}" for role, count in roles.items()) or "none runs"
    yield Finding("services", f"{counted}: {'; '.join(wrong)}" if wrong else counted, START if wrong else "")


def mail_server(settings: Settings, _: datetime) -> Iterator[Finding]:
    """The mail server of [alerts] takes us, with our password; nothing is sent."""
    alerts = settings.alerts
    if not alerts.email_to:
        return
    where = f"{alerts.smtp_host} port {alerts.smtp_port} ({alerts.smtp_security})"
    try:
        mail.connect(settings).quit()
    except OSError as error:
        remedy = f"mend smtp_host, smtp_port, smtp_security, ca or smtp_user in [alerts], or set {mail.PASSWORD}"
        yield Finding("mail", f"{where}: {error}", remedy)
    else:
        yield Finding("mail", f"{where} takes us")
