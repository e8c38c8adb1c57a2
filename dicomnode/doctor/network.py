"""What the network sees of the node, and the node of its peers."""

import socket
import ssl
from collections.abc import Iterator
from datetime import datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from pynetdicom.sop_class import Verification

from dicomnode import sender, tls
from dicomnode.config import ConfigError, Destination, Settings, Tls
from dicomnode.doctor.finding import Finding
from dicomnode.sender import Unreachable, web

EXPIRY_WARNING = 30  # days
PATIENCE = 5.0  # seconds
SERVICES = {"listen": "the listener", "web": "the web service"}


def ae_titles(settings: Settings, _: datetime) -> Iterator[Finding]:
    """Ours is nobody else's, and no destination is there twice."""
    ours, twins = settings.node.ae_title, set[tuple[str, str, int]]()
    peers = [(f"[[source]] {s.ae_title}", s.ae_title) for s in settings.source]
    peers += [(f"[[destination]] {d.name}", d.ae_title) for d in settings.destination]
    wrong = [f"{whose} has our own AE title" for whose, title in peers if title == ours]
    for d in settings.destination:
        address = (d.ae_title, d.stow_url or d.host, d.port)
        if address in twins:
            wrong.append(f"[[destination]] {d.name} is where another one is: every file goes there twice")
        twins.add(address)
    remedy = "give each peer its own AE title in node.toml, and each destination one entry" if wrong else ""
    yield Finding("AE titles", "; ".join(wrong) or f"we are {ours}", remedy)


def sources(settings: Settings, _: datetime) -> Iterator[Finding]:
    """Somebody may send."""
    if not settings.source:
        yield Finding("sources", "none", "nobody may send: add a [[source]] to node.toml")
        return
    yield Finding("sources", ", ".join(f"{s.ae_title} from {' '.join(s.addresses)}" for s in settings.source))


def port(settings: Settings, _: datetime) -> Iterator[Finding]:
    """The listener's port is free, or ours."""
    yield _port(settings)


def _port(settings: Settings) -> Finding:
    address = (settings.listen.host, settings.listen.port)
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except PermissionError:
            return Finding("port", f"{address[1]} needs privileges", "choose a port above 1023 in [listen]")
        except OSError as error:
            ours = _answers(settings)
            words = f"{address[1]} is held by {'our listener' if ours else 'another program'} ({error.strerror})"
            return Finding("port", words, "" if ours else "end that program, or change [listen] port")
    return Finding("port", f"{address[1]} is free: the listener is not running")


def web_port(settings: Settings, _: datetime) -> Iterator[Finding]:
    """The port of the web service is free, or ours."""
    if not settings.web.enabled:
        return
    host, number = settings.web.host, settings.web.port
    if (settings.listen.port, settings.listen.host) in ((number, host), (number, "0.0.0.0")):
        yield Finding("web port", f"{number} is the listener's too", "give [web] or [listen] another port")
        return
    try:
        with socket.create_server((host, number), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            yield Finding("web port", f"{number} is free: the web service is not running")
    except PermissionError:
        yield Finding("web port", f"{number} needs privileges", "choose a port above 1023 in [web]")
    except OSError as error:
        ours = _serves(settings)
        words = f"{number} is held by {'our web service' if ours else 'another program'} ({error.strerror})"
        yield Finding("web port", words, "" if ours else "end that program, or change [web] port")


def _serves(settings: Settings) -> bool:
    """True where the program on the port of the web service answers as ours does."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.web.host, settings.web.host)
    if settings.web.tls.certificate:
        return _shows_our_certificate(host, settings.web.port, Tls(settings.web.tls.certificate))
    connection = HTTPConnection(host, settings.web.port, timeout=PATIENCE)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().read() == b'{"live":true}'
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def certificates(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Those that we show are good, and for a while yet."""
    if settings.listen.tls.certificate:
        yield _tls(settings.listen.tls, now)
    if settings.web.enabled and settings.web.tls.certificate:
        yield _tls(Tls(settings.web.tls.certificate, settings.web.tls.key), now, "web")


def _tls(files: Tls, now: datetime, section: str = "listen") -> Finding:
    check = "tls" if section == "listen" else f"{section} tls"
    renew = "put a renewed certificate in its place and restart " + SERVICES[section]
    try:
        ends = tls.ends_at(files, section)
    except ConfigError as error:
        return Finding(check, str(error), f"mend the paths in [{section}] tls, or who may read the files")
    except ssl.SSLCertVerificationError as error:
        return Finding(check, f"senders refuse {files.certificate}: {error.verify_message}", renew)
    left = (ends - now).days
    words = f"{files.certificate} is good until {ends:%Y-%m-%d} ({left} days)"
    if section == "listen":
        shown = f"must show one by {files.client_ca}" if files.client_ca else "need none; see client_ca"
        words += f"; senders {shown}"
    return Finding(check, words, renew if left < EXPIRY_WARNING else "")


def _answers(settings: Settings) -> bool:
    """True where the program on our port speaks DICOM under our AE title, even if it rejects us."""
    host = "127.0.0.1" if settings.listen.host == "0.0.0.0" else settings.listen.host
    if settings.listen.tls.certificate:
        return _shows_our_certificate(host, settings.listen.port, settings.listen.tls)
    us = Destination("self", settings.node.ae_title, host, settings.listen.port)
    try:
        sender.associate(us, settings.node.ae_title, [Verification]).release()
    except Unreachable as answer:
        return "register it there" in str(answer)
    return True


def _shows_our_certificate(host: str, port: int, files: Tls) -> bool:
    try:
        shown = ssl.get_server_certificate((host, port), timeout=PATIENCE)
        return "".join(shown.split()) in "".join(Path(files.certificate).read_text().split())
    except OSError:
        return False


def destinations(settings: Settings, _: datetime) -> Iterator[Finding]:
    """Each answers: to C-ECHO, or to the smallest of QIDO-RS queries."""
    if not settings.destination:
        yield Finding("destination", "none", "results would stay on the node: add a [[destination]] to node.toml")
    for destination in settings.destination:
        check = f"destination {destination.name}"
        if destination.stow_url:
            yield _web(check, destination)
            continue
        try:
            assoc = sender.associate(destination, settings.node.ae_title, [Verification])
        except Unreachable as why:
            yield Finding(check, str(why), "start the PACS, mend the entry, or register our AE title there")
            continue
        status = assoc.send_c_echo()
        assoc.release()
        ok = status.get("Status") == 0
        yield Finding(
            check, "answers C-ECHO" if ok else f"C-ECHO failed: {status}", "" if ok else "ask the PACS administrator"
        )


def _web(check: str, destination: Destination) -> Finding:
    try:
        return Finding(check, web.check(destination))
    except Unreachable as why:
        return Finding(check, str(why), "start the PACS, mend stow_url, or let us in there")
