"""`dicomnode audit`: read the audit trail, and prove that it is whole."""

from datetime import UTC, datetime
from json import dumps
from typing import Annotated

import typer

from dicomnode import audit, bookkeeping
from dicomnode.audit import Who
from dicomnode.commands.common import ConfigOption, books_of, fail

app = typer.Typer(help="The audit trail.", no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def verify(
    known: Annotated[str, typer.Option(help="A head that was printed earlier; it must still stand in the trail.")] = "",
    config_file: ConfigOption = None,
) -> None:
    """Walk the chain from its beginning; exit 1 at the first link that is broken."""
    chain = bookkeeping.verify(books_of(config_file), known)
    if chain.broken:
        fail(f"BROKEN after {chain.events} messages: {chain.broken}")
    typer.echo(f"{chain.events} messages, each follows the one before. Head: {chain.head}")
    typer.echo(f"Note the head where this machine cannot write; later: `dicomnode audit verify --known {chain.head}`")


@app.command("list")
def list_(
    since: Annotated[datetime | None, typer.Option(help="From this moment on (UTC).")] = None,
    xml: Annotated[bool, typer.Option("--xml", help="As PS3.15 A.5.1 writes them, one in a line.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Print the messages, one in a line: when, and what as JSON. That they were read is recorded too."""
    books = books_of(config_file)
    for at, message in bookkeeping.trail(books, since.replace(tzinfo=UTC) if since else None):
        typer.echo(audit.as_xml(message, at) if xml else f"{at.isoformat()} {dumps(message, ensure_ascii=False)}")
    bookkeeping.record(books, audit.log_used(Who(audit.person(), requestor=True)), datetime.now(UTC))
