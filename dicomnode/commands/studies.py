"""One study or all of them: where its maps are, and what an operator may do for it."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from dicomnode import audit, bookkeeping
from dicomnode.commands.common import USAGE, ConfigOption, Key, books_of, fail, open_books, screen, settings_of


def status(
    watching: Annotated[
        bool, typer.Option("--watch", help="One screen, again every two seconds, until Ctrl-C.")
    ] = False,
    config_file: ConfigOption = None,
) -> None:
    """What the node holds, is doing, and has refused in the last day."""
    from dicomnode import explain, watch

    if watching:
        settings = settings_of(config_file)
        watch.run(settings, open_books(settings), Console())
        return
    for line in explain.state_of_the_node(books_of(config_file), datetime.now(UTC)):
        screen.print(line)


def tell(
    key: Key,
    config_file: ConfigOption = None,
) -> None:
    """Where are my maps? The whole story of one study."""
    from dicomnode import explain

    lines = list(explain.tell(books_of(config_file), key))
    if not lines:
        fail(f"nothing is known of {key}; `dicomnode status` lists what was refused at the door")
    for line in lines:
        screen.print(line)


def retry(
    key: Key,
    config_file: ConfigOption = None,
) -> None:
    """Bring the failed or rejected jobs of a study back: what they lack is made and sent again."""
    books, now, actor = books_of(config_file), datetime.now(UTC), audit.person()
    jobs = [job for uid in bookkeeping.find_studies(books, key) for job in bookkeeping.story(books, uid).jobs]
    again = [job.id for job in jobs if bookkeeping.retry(books, job.id, now, actor)]
    if not again:
        fail(f"nothing of {key} has failed or was rejected; `dicomnode explain {key}` tells its state")
    screen.print(f"Brought back: {', '.join(again)}")


def resend(
    key: Key,
    to: Annotated[str, typer.Option(help="The name of one destination; else all of them.")] = "",
    config_file: ConfigOption = None,
) -> None:
    """Send the finished files of a study again, byte for byte; no state changes and nothing is computed."""
    settings = settings_of(config_file)
    chosen = [d for d in settings.destination if to in ("", d.name)]
    if not chosen:
        known = ", ".join(d.name for d in settings.destination) or "none; add a [[destination]] to node.toml"
        fail(f"no destination is called {to!r}; there are {known}" if to else f"destinations: {known}", USAGE)
    books, wanted = open_books(settings), [(d.name, d.kinds) for d in chosen]
    now, actor, jobs = datetime.now(UTC), audit.person(), bookkeeping.current(books, key)
    again = {job: bookkeeping.resend(books, job, wanted, now, actor) for job in jobs}
    for job_id, made in again.items():
        for name, count in made.items():
            screen.print(
                f"{count} files of job {job_id} go to {name} again; `dicomnode explain {job_id}` follows them."
            )
    if not any(again.values()):
        fail(f"{key} has no finished files to send; `dicomnode explain {key}` tells why")
