"""The services: everything in one process tree, or one by one, and the books that they stand on."""

import os
from datetime import UTC, datetime
from typing import Annotated

import typer

from dicomnode import bookkeeping, config, logs
from dicomnode.commands.common import (
    USAGE,
    ConfigOption,
    fail,
    find,
    load,
    manifest_of,
    open_books,
    screen,
    settings_of,
)
from dicomnode.config import ConfigError, Settings
from dicomnode.spool import Spool


def up(config_file: ConfigOption = None) -> None:
    """Run everything in one process tree until stopped."""
    from dicomnode.up import Tree, stop_on_signals

    path = find(config_file)
    settings = load(path)
    manifest_of(settings)
    logs.configure()
    _prepare(settings)
    Tree(path, (("web",),) if settings.web.enabled else ()).run(stop_on_signals())


def prepare(config_file: ConfigOption = None) -> None:
    """Before the services start one by one: folders, books of this version, queues; what was half received goes."""
    settings = settings_of(config_file)
    logs.configure()
    _prepare(settings)


def listen(config_file: ConfigOption = None) -> None:
    """Receive: the C-STORE SCP."""
    from dicomnode import notify
    from dicomnode.receivers import Receivers
    from dicomnode.recovery import recover
    from dicomnode.scp.server import listening_socket
    from dicomnode.tls import server_context
    from dicomnode.up import stop_on_signals

    settings = settings_of(config_file)
    logs.configure()
    try:
        _ = settings.listen.tls.certificate and server_context(settings.listen.tls)
    except ConfigError as error:
        fail(str(error), USAGE)
    books, spool = open_books(settings), Spool(settings.node.data_dir).make()
    try:
        listening = notify.inherited_socket() or listening_socket(settings.listen.host, settings.listen.port)
    except OSError as error:
        listen_at = f"{settings.listen.host} port {settings.listen.port}"
        fail(f"cannot listen on {listen_at}: {error.strerror}; try `dicomnode doctor`")
    if (port := listening.getsockname()[1]) != settings.listen.port:
        given = f"the socket unit listens on port {port}, [listen] port is {settings.listen.port}"
        fail(f"{given}; make them the same: `systemctl edit dicomnode-listen.socket`, or edit node.toml", USAGE)
    now = datetime.now(UTC)
    bookkeeping.release_all(books, now)
    recover(books, spool, settings.lane_of_unknown, now)
    with bookkeeping.running(books, "listen"):
        bookkeeping.close(books)  # before the fork
        Receivers(settings, listening).run(stop_on_signals())


def sweep(config_file: ConfigOption = None) -> None:
    """Decide: turn whole series into jobs, and pick up what was lost."""
    from dicomnode import tasks
    from dicomnode.sweep import Sweep
    from dicomnode.up import stop_on_signals

    settings = settings_of(config_file)
    logs.configure()
    tasks.configure(settings)
    manifest = manifest_of(settings)
    books, spool = open_books(settings), Spool(settings.node.data_dir).make()
    wakes = (tasks.wake_process, tasks.wake_deliver, tasks.foretell, tasks.wake_render)
    sweeping = Sweep(settings, books, spool, manifest, *wakes)
    with bookkeeping.running(books, "sweep"):
        sweeping.run(stop_on_signals())


def work(
    kind: Annotated[
        str, typer.Argument(help="stroke, routine or deliver; stroke-2 is another of the kind, for units.")
    ] = "",
    queues: Annotated[
        str, typer.Option(help="Which queues; one after the other, a message of each in turn.")
    ] = "process.stroke,process.routine,deliver",
    config_file: ConfigOption = None,
) -> None:
    """Compute and send: one worker of a kind, or over these queues."""
    from dicomnode import tasks
    from dicomnode.up import WORKERS

    path = find(config_file)
    settings = load(path)
    known = kind.partition("-")[0]
    if known and known not in WORKERS:
        fail(f"no worker is called {kind!r}; they are {', '.join(WORKERS)}", USAGE)
    names = [name.strip() for name in WORKERS.get(known, queues).split(",")]
    if unknown := [name for name in names if name not in tasks.QUEUES]:
        fail(f"no queue is called {unknown[0]!r}; they are {', '.join(tasks.QUEUES)}", USAGE)
    os.environ[config.ENVIRONMENT] = str(path)
    logs.configure()
    books = open_books(settings)
    manifest_of(settings)
    tasks.configure(settings)
    with bookkeeping.running(books, f"work {queues}"):
        bookkeeping.close(books)  # before the fork
        tasks.work(names)


def web(config_file: ConfigOption = None) -> None:
    """Serve: DICOMweb and the administrator's page."""
    from dicomnode.web.server import serve  # only here: it brings the web framework

    settings = settings_of(config_file)
    logs.configure()
    books = open_books(settings)
    Spool(settings.node.data_dir).make()
    try:
        with bookkeeping.running(books, "web"):
            served = serve(settings, books)
    except ConfigError as error:
        fail(str(error), USAGE)
    if not served:
        where = f"{settings.web.host} port {settings.web.port}"
        fail(f"cannot serve on {where}: something else does; change [web] port, or try `dicomnode doctor`")


def migrate(
    to: Annotated[str, typer.Option(help="A revision; to go back before an older version is installed.")] = "head",
    config_file: ConfigOption = None,
) -> None:
    """Bring the books to this version, with all that is in them."""
    settings = settings_of(config_file)
    Spool(settings.node.data_dir).make()
    try:
        bring_up_to_date(settings, to)
    except LookupError as error:
        fail(str(error), USAGE)
    screen.print("The books are of this version." if to == "head" else f"The books are at revision {to}.")


def bring_up_to_date(settings: Settings, to: str = "head") -> None:
    """Migrate the books."""
    try:
        bookkeeping.migrate(settings.books_url, to)
    except bookkeeping.BooksAway as error:
        fail(f"the books do not answer: {error.orig}; see `dicomnode doctor`")


def _prepare(settings: Settings) -> None:
    from dicomnode import tasks  # only here: it brings Celery

    Spool(settings.node.data_dir).make().clear_unfinished()
    bring_up_to_date(settings)
    tasks.configure(settings)
    if not settings.broker.url:  # a server makes its queues when they are asked for
        tasks.declare()
