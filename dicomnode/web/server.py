"""`dicomnode web`: the service over HTTP or HTTPS until it is told to stop."""

import socket
import ssl
from datetime import UTC, datetime

import uvicorn

from dicomnode import bookkeeping, notify
from dicomnode.bookkeeping import Books
from dicomnode.config import Settings, Tls
from dicomnode.forecast import Forecast
from dicomnode.intake import Intake
from dicomnode.room import Room
from dicomnode.scp.store import Store
from dicomnode.spool import Spool
from dicomnode.tls import server_context
from dicomnode.web.app import make
from dicomnode.web.site import Site
from dicomnode.web.stow import MARK

MOST = 256  # connections; who comes then is told to come back (503)


def site(settings: Settings, books: Books) -> Site:
    """The node of these settings."""
    intake, listen = Intake(books, Spool(settings.node.data_dir)), settings.listen
    room = Room(settings.node.data_dir, int(listen.keep_free_gib * 2**30))
    clock = lambda: datetime.now(UTC)  # noqa: E731
    store = Store(intake, room, listen.largest_instance_mib * 2**20, clock)
    return Site(settings, intake, store, clock, Forecast(settings.node.data_dir, room.keep_free))


def context(settings: Settings) -> ssl.SSLContext | None:
    """TLS of the service, or None for plain HTTP; raises ConfigError with the file that cannot be used."""
    tls = settings.web.tls
    return server_context(Tls(tls.certificate, tls.key), "web") if tls.certificate else None


class Server(uvicorn.Server):
    """Tells the service manager that it serves, and for as long as its loop turns."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._pulse = notify.Pulse()

    async def on_tick(self, counter: int) -> bool:
        """Uvicorn calls this ten times a second once it serves."""
        self._pulse.beat()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """No more connections."""
        notify.tell(notify.STOPPING)
        await super().shutdown(sockets)


def server(settings: Settings, books: Books) -> Server:
    """The service, not yet started. Its own access log names routes and not addresses, so uvicorn's is off."""
    bookkeeping.release_all(books, datetime.now(UTC), MARK)
    secure = context(settings)
    return Server(
        uvicorn.Config(
            make(site(settings, books)),
            host=settings.web.host,
            port=settings.web.port,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            limit_concurrency=MOST,
            timeout_graceful_shutdown=5,
            ssl_context_factory=(lambda _, __: secure) if secure else None,
        )
    )


def serve(settings: Settings, books: Books) -> bool:
    """Serve until SIGTERM or SIGINT; False where the port cannot be had. Raises ConfigError."""
    running = server(settings, books)
    try:
        running.run()
    except SystemExit:  # uvicorn's way to say that it could not begin
        return False
    finally:
        bookkeeping.close(books)
    return running.started
