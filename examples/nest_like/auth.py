"""Who is logged in: two endpoints, and the guard of the other modules."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, Field

from filesession.contrib.fastapi import SessionDep, SessionModel

router = APIRouter(prefix="/auth", tags=["auth"])


class Account(BaseModel):
    """What this module keeps in the session."""

    user: str | None = None


class Login(BaseModel):
    """The example asks for no password."""

    name: Annotated[str, Field(min_length=1, max_length=40)]


AccountDep: TypeAlias = Annotated[Account, SessionModel(Account)]


async def logged_in(account: AccountDep) -> str:
    """The guard: the user's name, or a refusal, of a request as of a websocket."""
    if account.user is None:
        raise HTTPException(401, "Log in first.")
    return account.user


UserDep: TypeAlias = Annotated[str, Depends(logged_in)]


@router.post("/login")
async def log_in(login: Login, session: SessionDep, account: AccountDep) -> Account:
    """Log in, with a new session id: one that somebody planted before is worthless after."""
    session.regenerate()
    account.user = login.name
    return account


@router.post("/logout", status_code=204)
async def log_out(session: SessionDep) -> None:
    """Log out, for good: the session is deleted, and its cookie worthless wherever it is."""
    session.destroy()
