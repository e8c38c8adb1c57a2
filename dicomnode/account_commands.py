"""`dicomnode account`: who may use the web service. Passwords are asked for or read from a pipe, never arguments."""

import getpass
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from dicomnode import bookkeeping, config, passwords
from dicomnode.bookkeeping import Books, BooksAway, BooksOutdated
from dicomnode.config import ConfigError
from dicomnode.roles import Role, is_name

FAILED, USAGE = 1, 2

app = typer.Typer(help="Who may use the web service.", no_args_is_help=True, pretty_exceptions_enable=False)

Name = Annotated[str, typer.Argument(help="Name of the account; that of a sender is its AE title in [[source]].")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="node.toml; else as for the other commands.")]


@app.command()
def add(
    name: Name,
    role: Annotated[Role, typer.Option(help="What it may do.")],
    token_only: Annotated[bool, typer.Option("--token-only", help="No password: for programs.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Make an account."""
    if not is_name(name):
        _fail("a name has 1 to 64 printable characters, no colon, and no space at its ends", USAGE)
    books = _books(config_file)
    hashed = None if token_only else _hash()
    if not bookkeeping.add_account(books, name, role, hashed, datetime.now(UTC), _actor()):
        _fail(f"there is an account {name} already; `dicomnode account list` shows all")
    typer.echo(f"{name} is {role} now." + (f" Next: `dicomnode account token {name}`." if token_only else ""))


@app.command("list")
def list_(config_file: ConfigOption = None) -> None:
    """All accounts."""
    now = datetime.now(UTC)
    for account, tokens in bookkeeping.accounts(_books(config_file)):
        locked = ", locked" if account.locked_until and account.locked_until > now else ""
        how = "password" if account.password_hash else "no password"
        typer.echo(f"{account.name:20s} {account.role:14s} {how}, {tokens} tokens{locked}")


@app.command()
def password(name: Name, config_file: ConfigOption = None) -> None:
    """Give an account another password; its sessions end and a lock is lifted."""
    books = _books(config_file)
    if not bookkeeping.change_account(books, name, datetime.now(UTC), _actor(), password_hash=_hash()):
        _nobody(name)


@app.command()
def role(name: Name, role: Role, config_file: ConfigOption = None) -> None:
    """Give an account another role; its sessions end."""
    if not bookkeeping.change_account(_books(config_file), name, datetime.now(UTC), _actor(), role=role):
        _nobody(name)


@app.command()
def remove(name: Name, config_file: ConfigOption = None) -> None:
    """Remove an account with its sessions and tokens."""
    if not bookkeeping.remove_account(_books(config_file), name, datetime.now(UTC), _actor()):
        _nobody(name)


@app.command()
def token(
    name: Name,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it counts.")] = 365,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Withdraw all tokens of the account instead.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Print a token for `Authorization: Bearer`; it is shown this once, and only its digest is kept."""
    books, now = _books(config_file), datetime.now(UTC)
    if bookkeeping.account(books, name) is None:
        _nobody(name)
    if withdraw:
        typer.echo(f"{bookkeeping.end_tokens(books, name, now, _actor())} tokens withdrawn")
        return
    secret = passwords.new_secret()
    until = now + timedelta(days=days)
    bookkeeping.add_access(books, passwords.digest(secret), name, bookkeeping.TOKEN, "", until, now, _actor())
    typer.echo(secret)


def _hash() -> str:
    """Asked for twice at a terminal, else one line of standard input."""
    if sys.stdin.isatty():
        given = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != given:
            _fail("the two are not the same", USAGE)
    else:
        given = sys.stdin.readline().rstrip("\n")
    try:
        return passwords.hash_password(given)
    except ValueError as error:
        _fail(str(error), USAGE)


def _actor() -> str:
    """Who types this, as the machine knows them."""
    return f"{getpass.getuser()} at the command line"


def _books(config_file: Path | None) -> Books:
    try:
        return bookkeeping.open_books(config.load(config.find(config_file)).books_url)
    except (ConfigError, BooksOutdated) as error:
        _fail(str(error), USAGE)
    except BooksAway as error:
        _fail(f"the books do not answer: {error.orig}; see `dicomnode doctor`")


def _nobody(name: str) -> NoReturn:
    _fail(f"there is no account {name}; `dicomnode account list` shows all")


def _fail(message: str, code: int = FAILED) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
