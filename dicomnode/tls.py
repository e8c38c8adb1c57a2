"""TLS of the listener and the web service: the BCP 195 profile of PS3.15 Annex B; certificates of both where asked."""

import ssl
from contextlib import suppress
from datetime import UTC, datetime

from dicomnode.config import ConfigError, Tls

# BCP 195 (RFC 9325): TLS 1.2 at least, and of that only suites with forward secrecy and authenticated encryption.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!PSK"
FLIGHTS = 3  # each side's turns in a handshake, at most


def server_context(tls: Tls, section: str = "listen") -> ssl.SSLContext:
    """Our side, as a section of node.toml has it; raises ConfigError with the file that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_refuse_to_ask)
    except (OSError, ValueError) as error:
        names = f"certificate {tls.certificate} with key {tls.key}"
        raise ConfigError(f"[{section}] tls: {names} cannot be used: {_words(error)}") from error
    if tls.client_ca:
        try:
            context.load_verify_locations(tls.client_ca)
        except (OSError, ValueError) as error:
            raise ConfigError(f"[{section}] tls: client_ca {tls.client_ca} cannot be used: {_words(error)}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def ends_at(tls: Tls, section: str = "listen") -> datetime:
    """When our certificate ends.

    Raises ssl.SSLCertVerificationError where a client would not take it (any more), ConfigError where it is no use.
    """
    server, client = server_context(tls, section), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.verify_mode = ssl.CERT_NONE
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # who has signed it is the clients' business
    client.load_verify_locations(tls.certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)
    for end in ends * FLIGHTS:
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    seen = ends[0].getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(seen["notAfter"])), UTC)


def _refuse_to_ask() -> str:
    raise ValueError("the key is encrypted; decrypt it and let only the node's account read it")


def _words(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
