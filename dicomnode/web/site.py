"""What every request needs, made once."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from fastapi import Request

from dicomnode.bookkeeping import Books
from dicomnode.config import Settings
from dicomnode.forecast import Forecast
from dicomnode.intake import Intake
from dicomnode.scp.store import Store
from dicomnode.spool import Spool

DICOMWEB = "/dicom-web"  # where its addresses begin (design contract 16)


@dataclass(frozen=True, slots=True)
class Site:
    """One node behind its web service. `clock` is the only source of time."""

    settings: Settings
    intake: Intake
    store: Store
    clock: Callable[[], datetime]
    forecast: Forecast

    @property
    def books(self) -> Books:
        """Its books."""
        return self.intake.books

    @property
    def spool(self) -> Spool:
        """Its bytes."""
        return self.intake.spool

    def address(self, request: Request) -> str:
        """Where the service is, as its user sees it; without a slash at the end."""
        return (self.settings.web.public_url or str(request.base_url)).rstrip("/")


def site_of(request: Request) -> Site:
    """The node that this request came to."""
    found: Site = request.app.state.site
    return found
