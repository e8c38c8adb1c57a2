"""The body of a request, read by a thread while the event loop receives what follows."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future

from fastapi import Request
from starlette.requests import ClientDisconnect

PIECE = 2**19  # bytes; at most twice as many of a request are in memory
PATIENCE = 60.0  # seconds in which a piece, or what is left, must come


class Silent(Exception):
    """The sender says nothing any more."""


def pieces(request: Request, loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """The body, piece by piece, for another thread than the loop's; one piece is received ahead.

    Raises Silent; where the sender breaks off, the body just ends.
    """
    stream = request.stream()

    def ask() -> "Future[bytes]":
        return asyncio.run_coroutine_threadsafe(_gather(stream), loop)

    ahead = ask()
    try:
        while piece := ahead.result():
            ahead = ask()
            yield piece
    finally:
        ahead.cancel()


async def _gather(stream: AsyncIterator[bytes]) -> bytes:
    """As much as a piece holds, or what is left; empty at the end."""
    gathered, size = list[bytes](), 0
    try:
        async with asyncio.timeout(PATIENCE):
            while size < PIECE and (chunk := await anext(stream, None)) is not None:
                gathered.append(chunk)
                size += len(chunk)
    except ClientDisconnect:
        pass  # what has come is taken; that the end lacks is seen by who reads it
    except TimeoutError as error:
        raise Silent from error
    return b"".join(gathered)
