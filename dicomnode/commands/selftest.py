"""`dicomnode selftest`: a virtual patient through the running node, and the record that a site signs."""

from pathlib import Path
from typing import Annotated

import typer

from dicomnode.commands.common import USAGE, ConfigOption, fail, find, load, manifest_of, open_books


def selftest(
    to: Annotated[list[str] | None, typer.Option(help="A real destination that gets the maps too; repeat.")] = None,
    protocol: Annotated[Path | None, typer.Option(help="Write the qualification record (Markdown) there.")] = None,
    host: Annotated[str, typer.Option(help="Where the node's senders reach this machine.")] = "127.0.0.1",
    config_file: ConfigOption = None,
) -> None:
    """Send a virtual patient through the running node to a receiver of its own, and check what comes out."""
    from dicomnode import doctor  # only here: they bring both ends of the network
    from dicomnode.selftest import protocol as record_of
    from dicomnode.selftest import run

    path = find(config_file)
    settings = load(path)
    books, manifest = open_books(settings), manifest_of(settings)
    if unknown := [name for name in to or () if settings.destination_named(name) is None]:
        known = ", ".join(d.name for d in settings.destination) or "none"
        fail(f"no destination is called {unknown[0]!r}; there are: {known}", USAGE)
    findings = list(doctor.examine(settings)) if protocol else []
    record = run.run(settings, books, manifest, tuple(to or ()), host, typer.echo)
    if protocol:
        protocol.write_text(record_of.text(record, findings, settings, path, manifest), encoding="utf-8")
        typer.echo(f"The record is {protocol}.")
    if not record.passed:
        fail("The self-test has NOT passed; `dicomnode explain SELFTEST` and the log tell more.")
    typer.echo("The self-test has passed.")
