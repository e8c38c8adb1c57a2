"""`dicomnode support-bundle`: one file for who helps, written even where half of the node is broken."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dicomnode import bookkeeping
from dicomnode.bookkeeping import Books, BooksAway, BooksOutdated
from dicomnode.commands.common import ConfigOption, fail, settings_of


def support_bundle(
    file: Annotated[Path | None, typer.Argument(help="Where it goes; else dicomnode-support-<time>.zip here.")] = None,
    log: Annotated[Path | None, typer.Option(help="A file with the services' log; else the journal is asked.")] = None,
    config_file: ConfigOption = None,
) -> None:
    """Write what helpers need into one file: versions, settings, findings, states; no names, no pixels, no UIDs."""
    from dicomnode import support  # only here: it brings the doctor and both ends of the network

    settings = settings_of(config_file)
    books: Books | None = None
    try:
        books = bookkeeping.open_books(settings.books_url)
    except (BooksOutdated, BooksAway):
        typer.echo("The books cannot be opened: the bundle goes without them; see its doctor.txt.", err=True)
    now = datetime.now(UTC)
    path = file or support.default_name(now)
    try:
        support.write(path, settings, books, log, now)
    except OSError as error:
        fail(f"{path} or the log cannot be used: {error.strerror}")
    typer.echo(f"Wrote {path}. It names no patient and no peer; look at it before you send it.")
