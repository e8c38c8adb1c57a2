"""Accounts of the web service, their sessions and tokens; each change is a line of history with who made it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from dicomnode import audit
from dicomnode.audit import Outcome, Who
from dicomnode.bookkeeping.audits import append
from dicomnode.bookkeeping.store import Books, add, note, reading, writing
from dicomnode.bookkeeping.tables import Access, Account
from dicomnode.roles import Role, lock_after

SESSION, TOKEN, LINK = "session", "token", "link"
PROVIDER = "[web.oidc]"  # who makes and changes accounts in its name
IDLE = timedelta(minutes=30)  # a session that nobody uses ends
TOUCH = timedelta(minutes=1)  # use is recorded no more often


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who a request comes from. csrf: what each form of this session must bring back; empty for programs.

    job: of a link, the one whose page it opens.
    """

    name: str
    role: Role
    kind: str
    csrf: str = ""
    job: str = ""


def add_account(books: Books, name: str, role: Role, password_hash: str | None, now: datetime, actor: str) -> bool:
    """Make an account; False where the name is taken."""
    values = {"role": role, "password_hash": password_hash, "failures": 0, "created_at": now}
    with writing(books) as session:
        made = add(session, Account, Account.name, name=name, **values) is not None
        if made:
            note(session, "account", name, now, None, "ADDED", f"as {role}", actor)
            _tell_change(session, name, f"added as {role}", actor, now)
        return made


def change_account(
    books: Books, name: str, now: datetime, actor: str, *, role: Role | None = None, password_hash: str | None = None
) -> bool:
    """Give an account another role or password, which ends its sessions; False where there is none of ours."""
    words = {"role": role, "password_hash": password_hash}
    values = {key: value for key, value in words.items() if value is not None}
    with writing(books) as session:
        mine = (Account.name == name, Account.subject.is_(None))
        changed = update(Account).where(*mine).values(**values, failures=0, locked_until=None)
        if session.scalar(changed.returning(Account.name)) is None:
            return False
        session.execute(delete(Access).where(Access.account == name, Access.kind == SESSION))
        what = f"role {role}" if role else "password"
        note(session, "account", name, now, None, "CHANGED", what, actor)
        _tell_change(session, name, what, actor, now)
        return True


def remove_account(books: Books, name: str, now: datetime, actor: str) -> bool:
    """Remove an account with its sessions and tokens; its history stays."""
    with writing(books) as session:
        session.execute(delete(Access).where(Access.account == name))
        if session.scalar(delete(Account).where(Account.name == name).returning(Account.name)) is None:
            return False
        note(session, "account", name, now, None, "REMOVED", "by an administrator", actor)
        _tell_change(session, name, "removed", actor, now)
        return True


def accounts(books: Books) -> Sequence[tuple[Account, int]]:
    """All accounts, and how many tokens each has."""
    tokens = func.count(Access.digest).filter(Access.kind == TOKEN)
    with reading(books) as session:
        joined = select(Account, tokens).outerjoin(Access, Access.account == Account.name)
        return [(account, n) for account, n in session.execute(joined.group_by(Account.name).order_by(Account.name))]


def _tell_change(session: Session, name: str, how: str, actor: str, now: datetime) -> None:
    append(session, audit.account_changed(name, how, Who(actor, requestor=True)), now)


def account(books: Books, name: str) -> Account | None:
    """The account of this name."""
    with reading(books) as session:
        return session.get(Account, name)


def note_failure(books: Books, name: str, address: str, now: datetime) -> None:
    """A wrong password; after several the account is locked for a while, ever longer. One atomic count."""
    with writing(books) as session:
        counted = update(Account).where(Account.name == name).values(failures=Account.failures + 1)
        failures = session.scalar(counted.returning(Account.failures))
        known = name if failures is not None else "(unknown)"  # what was typed there may be a password
        note(session, "account", known, now, None, "LOGIN REFUSED", f"from {address}", known)
        until = lock_after(failures or 0, now)
        if until:
            session.execute(update(Account).where(Account.name == name).values(locked_until=until))
            note(session, "account", name, now, None, "LOCKED", f"after {failures} wrong passwords", name)
        outcome = Outcome.SERIOUS_FAILURE if until else Outcome.MINOR_FAILURE
        append(session, audit.authenticated(known, audit.LOGIN, address, outcome), now)


def note_login(books: Books, name: str, address: str, now: datetime) -> None:
    """The right password."""
    with writing(books) as session:
        session.execute(update(Account).where(Account.name == name).values(failures=0, locked_until=None))
        note(session, "account", name, now, None, "LOGIN", f"from {address}", name)
        append(session, audit.authenticated(name, audit.LOGIN, address), now)


def admit(books: Books, subject: str, name: str, role: Role, address: str, now: datetime) -> str | None:
    """Log in whom the provider vouches for; the account that is theirs. None where another account has that name.

    Theirs is the one of this subject, by whatever name it was made; it is made where there is none, and has the role
    that the provider says now: another than before ends the sessions of before.
    """
    with writing(books) as session:
        theirs = session.execute(select(Account.name, Account.role).where(Account.subject == subject)).first()
        if theirs is None:
            values = {"role": role, "subject": subject, "failures": 0, "created_at": now}
            if add(session, Account, Account.name, name=name, **values) is None:
                return None
            note(session, "account", name, now, None, "ADDED", f"as {role}, by the provider", PROVIDER)
            _tell_change(session, name, f"added as {role}", PROVIDER, now)
        elif theirs.role != role:
            session.execute(update(Account).where(Account.subject == subject).values(role=role))
            session.execute(delete(Access).where(Access.account == theirs.name, Access.kind == SESSION))
            note(session, "account", theirs.name, now, None, "CHANGED", f"role {role}, by the provider", PROVIDER)
            _tell_change(session, theirs.name, f"role {role}", PROVIDER, now)
        known = theirs.name if theirs else name
        note(session, "account", known, now, None, "LOGIN", f"from {address}, by the provider", known)
        append(session, audit.authenticated(known, audit.LOGIN, address), now)
        return str(known)


def note_login_refused(books: Books, name: str, why: str, address: str, now: datetime) -> None:
    """The provider, or what came in its name, did not let somebody in. name: whom it vouched for, or empty."""
    known = name or "(unknown)"
    with writing(books) as session:
        note(session, "account", known, now, None, "LOGIN REFUSED", f"from {address}: {why}", known)
        append(session, audit.authenticated(known, audit.LOGIN, address, Outcome.MINOR_FAILURE), now)


def add_access(
    books: Books,
    digest: str,
    name: str,
    kind: str,
    csrf: str,
    expires_at: datetime,
    now: datetime,
    actor: str,
    job: str = "",
) -> None:
    """Begin a session, or make a token or a link; only its digest is kept. What has expired is cleared away."""
    with writing(books) as session:
        session.execute(delete(Access).where(Access.expires_at < now))
        moments = {"created_at": now, "used_at": now, "expires_at": expires_at}
        session.add(Access(digest=digest, account=name, kind=kind, csrf=csrf, job=job, **moments))
        if kind == TOKEN:
            note(session, "account", name, now, None, "TOKEN", f"until {expires_at:%Y-%m-%d}", actor)
            session.flush()
            _tell_change(session, name, "token given", actor, now)
        if kind == LINK:
            note(session, "job", job, now, None, "LINK", f"to its page, until {expires_at:%H:%M:%S}", actor)


def visitor(books: Books, digest: str, now: datetime, *, active: bool = True) -> Visitor | None:
    """Whose session or token this is, if it still counts. active: False where a page only refreshes itself."""
    with reading(books) as session:
        mine = select(Access, Account).join(Account).where(Access.digest == digest, Access.expires_at > now)
        found = session.execute(mine).first()
        if found is None:
            return None
        access, owner = found
        if access.kind == SESSION and access.used_at < now - IDLE:
            return None
    if active and access.used_at < now - TOUCH:
        with writing(books) as session:
            session.execute(update(Access).where(Access.digest == digest).values(used_at=now))
    return Visitor(owner.name, owner.role, access.kind, access.csrf, access.job)


def end_access(books: Books, digest: str, now: datetime) -> None:
    """Log out, or withdraw a token."""
    with writing(books) as session:
        name = session.scalar(delete(Access).where(Access.digest == digest).returning(Access.account))
        if name:
            note(session, "account", name, now, None, "LOGOUT", "by its owner", name)
            append(session, audit.authenticated(name, audit.LOGOUT, ""), now)


def end_tokens(books: Books, name: str, now: datetime, actor: str) -> int:
    """Withdraw all tokens of an account; how many."""
    with writing(books) as session:
        mine = delete(Access).where(Access.account == name, Access.kind == TOKEN).returning(Access.digest)
        ended = len(session.scalars(mine).all())
        note(session, "account", name, now, None, "TOKENS WITHDRAWN", f"{ended}", actor)
        _tell_change(session, name, "tokens withdrawn", actor, now)
        return ended
