"""Whether the service lives, and whether it can work; for machines, without names or figures of patients."""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from dicomnode import bookkeeping
from dicomnode.pulse import lacking
from dicomnode.room import NoRoom
from dicomnode.web.site import Site, site_of

router = APIRouter(prefix="/health")


@router.get("/live")
async def live() -> JSONResponse:
    """The process answers."""
    return JSONResponse({"live": True})


@router.get("/ready")
def ready(site: Annotated[Site, Depends(site_of)], whole: bool = False) -> JSONResponse:
    """Books and disk can take instances; 503 where they cannot.

    whole: 503 too where no listener, sweep or worker has given a sign of life a moment ago. Without it they are only
    told: what is received meanwhile is safe, and a proxy must not turn it away.
    """
    try:
        roles = [role for role, n in bookkeeping.alive(site.books, site.clock()).items() if n]
        site.store.room.check()
    except bookkeeping.BooksAway:
        return JSONResponse({"ready": False, "why": "the books do not answer"}, 503)
    except NoRoom:
        return JSONResponse({"ready": False, "why": "the disk is too full"}, 503)
    lacks = lacking(roles)
    is_ready = not (whole and lacks)
    return JSONResponse({"ready": is_ready, "lacks": lacks}, 200 if is_ready else 503)
