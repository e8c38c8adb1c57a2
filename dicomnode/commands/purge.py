"""`dicomnode purge`: remove files of studies by hand; what holds a study on the disk holds it against people too."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from dicomnode import audit, bookkeeping
from dicomnode.bookkeeping import Kind
from dicomnode.commands.common import USAGE, ConfigOption, Key, fail, open_books, settings_of
from dicomnode.retention import Keeper
from dicomnode.spool import Spool

AT_ONCE = 100  # studies asked for at a time


def purge(
    key: Key = "",
    older_than: Annotated[float | None, typer.Option(min=1, help="All studies older than so many days.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Remove received files and results that are delivered. The books keep the story; nothing undelivered goes."""
    if bool(key) == (older_than is not None):
        fail("name one study, or give --older-than DAYS", USAGE)
    now = datetime.now(UTC)
    keeper = _keeper(config_file)
    if key:
        _one(keeper, key, now, dry_run)
    if older_than is not None:
        _all(keeper, older_than, now, dry_run)


def _one(keeper: Keeper, key: str, now: datetime, dry_run: bool) -> None:
    studies = bookkeeping.find_studies(keeper.books, key)
    if not studies:
        fail(f"nothing is known of {key}")
    for study in studies:
        held = bookkeeping.held_by(keeper.books, study, now, now)
        if held:
            fail(f"study {study} stays: {held}; see `dicomnode explain {study}`")
        _remove(keeper, study, now, "by an operator", now, dry_run)


def _all(keeper: Keeper, days: float, now: datetime, dry_run: bool) -> None:
    before, why, seen = now - timedelta(days=days), f"older than {days:g} days, by an operator", set[str]()
    for kind in Kind:
        most = AT_ONCE
        while new := set(bookkeeping.purgeable(keeper.books, kind, before, now, most)) - seen:
            for study in sorted(new):
                _remove(keeper, study, before, why, now, dry_run)
            seen |= new
            most += AT_ONCE  # what is only looked at, or is in use for the moment, is listed again
    typer.echo(f"{len(seen)} studies {'would lose' if dry_run else 'lost'} their files")


def _remove(keeper: Keeper, study: str, before: datetime, why: str, now: datetime, dry_run: bool) -> None:
    if dry_run:
        typer.echo(f"would remove the files of study {study}")
    elif keeper.remove(study, tuple(Kind), before, why, now, audit.person()):
        typer.echo(f"removed the files of study {study}")
    else:
        typer.echo(f"study {study} has no files, or is in use at this moment")


def _keeper(config_file: Path | None) -> Keeper:
    settings = settings_of(config_file)
    spool = Spool(settings.node.data_dir)
    return Keeper(settings, open_books(settings), spool, spool.free_bytes)
