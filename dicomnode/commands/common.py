"""What all commands share: exit codes, how they find settings, books and weights, and how they fail."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from dicomnode import bookkeeping, config
from dicomnode.bookkeeping import Books, BooksAway, BooksOutdated
from dicomnode.config import ConfigError, Settings
from inference import weights
from inference.weights import Manifest, WeightsError

FAILED, USAGE = 1, 2

screen, errors = (
    Console(highlight=False, markup=False, soft_wrap=True),
    Console(stderr=True, markup=False, soft_wrap=True),
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="node.toml; else $DICOMNODE_CONFIG, ./node.toml, /etc/dicomnode/node.toml."),
]
Key = Annotated[str, typer.Argument(help="Accession number, study or series UID, or job id.")]


def find(given: Path | None) -> Path:
    """Where node.toml is."""
    try:
        return config.find(given)
    except ConfigError as error:
        fail(str(error), USAGE)


def load(path: Path) -> Settings:
    """What it says."""
    try:
        return config.load(path)
    except ConfigError as error:
        fail(str(error), USAGE)


def settings_of(given: Path | None) -> Settings:
    """The settings of the node that is meant."""
    return load(find(given))


def open_books(settings: Settings) -> Books:
    """The books of these settings."""
    try:
        return bookkeeping.open_books(settings.books_url)
    except BooksOutdated as error:
        fail(str(error), USAGE)
    except BooksAway as error:
        fail(f"the books do not answer: {error.orig}; see `dicomnode doctor`")


def books_of(given: Path | None) -> Books:
    """The books of the node that is meant."""
    return open_books(settings_of(given))


def manifest_of(settings: Settings) -> Manifest:
    """What the weights of these settings say of themselves."""
    try:
        return weights.read(settings.weights_folder)
    except WeightsError as error:
        fail(f"[processing] weights: {error}", USAGE)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Say what is wrong and what to do, and end."""
    errors.print(message)
    raise typer.Exit(code)
