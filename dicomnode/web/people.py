"""Accounts, for administrators."""

from collections.abc import Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from dicomnode import bookkeeping, passwords
from dicomnode.bookkeeping import Visitor
from dicomnode.roles import Right, Role, is_name
from dicomnode.web.gate import form_of, may_do, may_see
from dicomnode.web.render import page
from dicomnode.web.site import Site, site_of

router = APIRouter(prefix="/accounts")
Here = Annotated[Site, Depends(site_of)]
Form = Mapping[str, str]


@router.get("", summary="Who may use the service", response_class=HTMLResponse)
def accounts(request: Request, site: Here, who: Annotated[Visitor, Depends(may_see(Right.ACCOUNTS))]) -> HTMLResponse:
    """All accounts; the command line gives out tokens."""
    found = bookkeeping.accounts(site.books)
    return page(request, "accounts.html", who, accounts=found, roles=list(Role), now=site.clock())


def _add(site: Site, form: Form, actor: str) -> bool:
    name, role = form.get("name", ""), _role(form)
    if not is_name(name) or role is None:
        return False
    return bookkeeping.add_account(
        site.books, name, role, passwords.hash_password(form.get("password", "")), site.clock(), actor
    )


def _password(site: Site, form: Form, actor: str) -> bool:
    hashed = passwords.hash_password(form.get("password", ""))
    return bookkeeping.change_account(site.books, form.get("name", ""), site.clock(), actor, password_hash=hashed)


def _change_role(site: Site, form: Form, actor: str) -> bool:
    role = _role(form)
    if role is None:
        return False
    return bookkeeping.change_account(site.books, form.get("name", ""), site.clock(), actor, role=role)


def _remove(site: Site, form: Form, actor: str) -> bool:
    return bookkeeping.remove_account(site.books, form.get("name", ""), site.clock(), actor)


def _role(form: Form) -> Role | None:
    return next((role for role in Role if role == form.get("role")), None)


ACTIONS: dict[str, Callable[[Site, Form, str], bool]] = {
    "add": _add,
    "password": _password,
    "role": _change_role,
    "remove": _remove,
}
NOT_OF_ONESELF = frozenset({"role", "remove"})  # so that an administrator is left


@router.post("/{action}", summary="Add, change or remove an account")
async def act(
    request: Request, action: str, site: Here, who: Annotated[Visitor, Depends(may_do(Right.ACCOUNTS))]
) -> RedirectResponse:
    """Do it, and lead back to the list. The name stands in the form: addresses are kept."""
    form = await form_of(request)
    if action not in ACTIONS:
        raise HTTPException(404, "nothing of this name can be done with an account")
    if action in NOT_OF_ONESELF and form.get("name") == who.name:
        return RedirectResponse("/accounts?said=not-yourself", 303)
    try:
        done = await run_in_threadpool(ACTIONS[action], site, form, who.name)
    except ValueError:  # the password is too short or too long
        done = False
    return RedirectResponse(f"/accounts?said={'account-changed' if done else 'account-refused'}", 303)
