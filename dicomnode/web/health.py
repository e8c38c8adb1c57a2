"""Whether the service lives, and whether it can work; for machines, without names or figures of patients."""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from dicomnode import bookkeeping
from dicomnode.room import NoRoom
from dicomnode.web.site import Site, site_of

router = APIRouter(prefix="/health")


@router.get("/live")
async def live() -> JSONResponse:
    """The process answers."""
    return JSONResponse({"live": True})


@router.get("/ready")
def ready(site: Annotated[Site, Depends(site_of)]) -> JSONResponse:
    """Books and disk can take instances; 503 where they cannot."""
    try:
        bookkeeping.absences(site.books)
        site.store.room.check()
    except bookkeeping.BooksAway:
        return JSONResponse({"ready": False, "why": "the books do not answer"}, 503)
    except NoRoom:
        return JSONResponse({"ready": False, "why": "the disk is too full"}, 503)
    return JSONResponse({"ready": True})
