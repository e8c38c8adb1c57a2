"""Is this node fit to work? Each check says what it found and, where something is wrong, the remedy."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from dicomnode.config import Settings
from dicomnode.doctor import machine, network, services
from dicomnode.doctor.finding import Finding

Check = Callable[[Settings, datetime], Iterator[Finding]]

CHECKS: dict[str, Check] = {
    "data_dir": machine.data_dir,
    "disk": machine.disk,
    "books": services.books,
    "broker": services.broker,
    "weights": machine.weights_,
    "engine": machine.engine,
    "clock": machine.clock,
    "AE titles": network.ae_titles,
    "sources": network.sources,
    "port": network.port,
    "tls": network.certificates,
    "web port": network.web_port,
    "accounts": services.accounts,
    "provider": services.provider,
    "services": services.alive,
    "destination": network.destinations,
    "mail": services.mail_server,
}


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in turn."""
    now = datetime.now(UTC)
    for check in CHECKS.values():
        yield from check(settings, now)


__all__ = ["CHECKS", "Finding", "examine"]
