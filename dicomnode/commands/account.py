"""`dicomnode account`: who may use the web service. Passwords are asked for or read from a pipe, never arguments."""

import getpass
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, NoReturn

import typer

from dicomnode import audit, bookkeeping, passwords
from dicomnode.commands.common import USAGE, ConfigOption, books_of, fail
from dicomnode.roles import Role, is_name

app = typer.Typer(help="Who may use the web service.", no_args_is_help=True, pretty_exceptions_enable=False)

Name = Annotated[str, typer.Argument(help="Name of the account; that of a sender is its AE title in [[source]].")]


@app.command()
def add(
    name: Name,
    role: Annotated[Role, typer.Option(help="What it may do.")],
    token_only: Annotated[bool, typer.Option("--token-only", help="No password: for programs.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Make an account."""
    if not is_name(name):
        fail("a name has 1 to 64 printable characters, no colon, and no space at its ends", USAGE)
    books = books_of(config_file)
    hashed = None if token_only else _hash()
    if not bookkeeping.add_account(books, name, role, hashed, datetime.now(UTC), audit.person()):
        fail(f"there is an account {name} already; `dicomnode account list` shows all")
    typer.echo(f"{name} is {role} now." + (f" Next: `dicomnode account token {name}`." if token_only else ""))


@app.command("list")
def list_(config_file: ConfigOption = None) -> None:
    """All accounts."""
    now = datetime.now(UTC)
    for account, tokens in bookkeeping.accounts(books_of(config_file)):
        locked = ", locked" if account.locked_until and account.locked_until > now else ""
        how = "by the provider" if account.subject else "password" if account.password_hash else "no password"
        typer.echo(f"{account.name:20s} {account.role:14s} {how}, {tokens} tokens{locked}")


@app.command()
def password(name: Name, config_file: ConfigOption = None) -> None:
    """Give an account another password; its sessions end and a lock is lifted."""
    books = books_of(config_file)
    if not bookkeeping.change_account(books, name, datetime.now(UTC), audit.person(), password_hash=_hash()):
        _nobody(name)


@app.command()
def role(name: Name, role: Role, config_file: ConfigOption = None) -> None:
    """Give an account another role; its sessions end."""
    if not bookkeeping.change_account(books_of(config_file), name, datetime.now(UTC), audit.person(), role=role):
        _nobody(name)


@app.command()
def remove(name: Name, config_file: ConfigOption = None) -> None:
    """Remove an account with its sessions and tokens."""
    if not bookkeeping.remove_account(books_of(config_file), name, datetime.now(UTC), audit.person()):
        _nobody(name)


@app.command()
def token(
    name: Name,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it counts.")] = 365,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Withdraw all tokens of the account instead.")] = False,
    config_file: ConfigOption = None,
) -> None:
    """Print a token for `Authorization: Bearer`; it is shown this once, and only its digest is kept."""
    books, now = books_of(config_file), datetime.now(UTC)
    account = bookkeeping.account(books, name)
    if account is None:
        _nobody(name)
    if account.subject and not withdraw:
        fail(f"{name} logs in by the hospital's provider; give the program an account of its own")
    if withdraw:
        typer.echo(f"{bookkeeping.end_tokens(books, name, now, audit.person())} tokens withdrawn")
        return
    secret = passwords.new_secret()
    until = now + timedelta(days=days)
    bookkeeping.add_access(books, passwords.digest(secret), name, bookkeeping.TOKEN, "", until, now, audit.person())
    typer.echo(secret)


def _hash() -> str:
    """Asked for twice at a terminal, else one line of standard input."""
    if sys.stdin.isatty():
        given = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != given:
            fail("the two are not the same", USAGE)
    else:
        given = sys.stdin.readline().rstrip("\n")
    try:
        return passwords.hash_password(given)
    except ValueError as error:
        fail(str(error), USAGE)


def _nobody(name: str) -> NoReturn:
    fail(f"there is no account {name} of ours; `dicomnode account list` shows all")
