"""Pages from templates, and the few words that all of them share."""

from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from dicomnode import __version__
from dicomnode.bookkeeping import Visitor
from dicomnode.roles import MAY, Right

STATIC = {
    "style.css": "text/css",
    "pilo.css": "text/css",
    "page.js": "text/javascript",
    "pilo.js": "text/javascript",
    "blend.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    for size, unit in UNITS:
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if abs(seconds) >= 10 else f"{seconds:.1f} s"


def moment(at: datetime | None) -> str:
    """A moment in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if at else "never"


def _environment() -> Environment:
    made = Environment(loader=PackageLoader("dicomnode.web"), autoescape=True, undefined=StrictUndefined)
    made.filters |= {"duration": duration, "moment": moment}
    made.globals |= {"version": __version__, "Right": Right}
    return made


_templates = _environment()


def page(request: Request, name: str, who: Visitor | None, status: int = 200, **values: Any) -> HTMLResponse:
    """A page; every value is escaped by the template."""
    may = MAY[who.role] if who else frozenset()
    said = request.query_params.get("said", "")
    text = _templates.get_template(name).render(who=who, may=may, said=SAID.get(said, ""), **values)
    return HTMLResponse(text, status)


def static(name: str) -> bytes:
    """A style sheet, script or icon."""
    return files("dicomnode.web").joinpath("static", name).read_bytes()


# What a page says after an action; the address holds only the key.
SAID = {
    "retried": "Brought back. The job is made and sent again.",
    "not-retried": "Nothing was brought back: the job has neither failed nor been rejected.",
    "resent": "The finished files go out again.",
    "not-resent": "Nothing was sent: the job has no finished files for that destination.",
    "dismissed": "Dismissed, with your note in the history.",
    "not-dismissed": "Not dismissed: only a failed or rejected job can be, and only once.",
    "no-note": "Not dismissed: write a note that says why.",
    "not-found": "Nothing is known of that. Accession number, study or series UID, or job id, in full.",
    "account-changed": "The account has been changed.",
    "account-refused": "Not changed: the name is taken or unknown, or the password has not 12 to 256 characters.",
    "not-yourself": "Nobody can remove or change the role of the account they are logged in with.",
}
