"""The certificates that the node shows, and until when they are good."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from dicomnode import tls
from dicomnode.config import ConfigError, Settings, Tls


@dataclass(frozen=True, slots=True)
class Certificate:
    """One section's certificate. ends: None where it cannot be used, and then `wrong` says why."""

    section: str
    ends: datetime | None
    wrong: str = ""

    def days(self, now: datetime) -> float:
        """Days until it ends; negative where it has ended or is no use."""
        return (self.ends - now).total_seconds() / 86400 if self.ends else -1.0


def configured(settings: Settings) -> Iterator[Certificate]:
    """Those of the settings."""
    web = Tls(settings.web.tls.certificate, settings.web.tls.key)
    for section, files in (("listen", settings.listen.tls), ("web", web)):
        if not files.certificate:
            continue
        try:
            yield Certificate(section, tls.ends_at(files, section))
        except (ConfigError, ssl.SSLError) as error:
            yield Certificate(section, None, str(error))
